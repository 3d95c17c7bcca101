"""Acting on units: analysis, audit, ablation, pruning."""
