"""Stage 6: slices to a probability of expansion - one timm Vision Transformer, scores averaged a patient."""
