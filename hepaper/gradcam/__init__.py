"""Grad-CAM of the classifier (Fig. 6H): the maps, which patients to show, and whether heat follows the hematoma."""
