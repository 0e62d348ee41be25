"""The study's tables: text for reading, numbers for computing, the paper's values beside."""

from hepaper.tables.augmentation import quality_table, table2_beside_published, training_sets, training_sets_table
from hepaper.tables.segmentation import benchmark_table, comparison_table, cost_table, full_scale_table
from hepaper.tables.small import arms_table, geometry, head, label_agreement, oracle, segmentation, volume_pairs
from hepaper.tables.table1 import scan_times, table1, table1_beside_published
from hepaper.tables.table3 import table3, table3_beside_published

__all__ = [
    "arms_table",
    "benchmark_table",
    "comparison_table",
    "cost_table",
    "full_scale_table",
    "geometry",
    "head",
    "label_agreement",
    "oracle",
    "quality_table",
    "scan_times",
    "segmentation",
    "table1",
    "table1_beside_published",
    "table2_beside_published",
    "table3",
    "table3_beside_published",
    "training_sets",
    "training_sets_table",
    "volume_pairs",
]
