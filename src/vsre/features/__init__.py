"""What a model's visual tokens say about space, encoder by encoder: before projection, after it, and merged."""

from vsre.features.complement import Complement, complement
from vsre.features.inside import Inside, inside
from vsre.features.measures import class_distances, effective_rank, linear_cka

__all__ = ["Complement", "Inside", "class_distances", "complement", "effective_rank", "inside", "linear_cka"]
