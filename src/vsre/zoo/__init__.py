"""The zoo: the tiny models that ship with vsre, and how each is made from scratch."""
