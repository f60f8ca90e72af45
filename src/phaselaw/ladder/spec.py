"""What the ladder's models are: architecture and parameter count, with nothing heavy to import.

The seven are TR121's (its Appendix A and ``hf_model_architecture``); their counts are those that TR121
measured, with the output projection tied to the embedding and counted once.
"""

import dataclasses

PREFIX = "models/"
"""How a study names a model of the ladder: ``models/gpt2-25m``."""

VOCAB_SIZE = 50257
N_POSITIONS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LadderModel:
    """One GPT-2 variant; ``n_inner`` is ``None`` where TR121's config has the default, 4 x ``n_embd``."""

    name: str
    n_layer: int
    n_embd: int
    n_head: int
    n_inner: int | None
    params: int
    """Parameters, tied weights counted once."""
    vocab_size: int = VOCAB_SIZE
    n_positions: int = N_POSITIONS

    @property
    def inner_width(self) -> int:
        """Width of the feed-forward layer."""
        return self.n_inner or 4 * self.n_embd


LADDER: tuple[LadderModel, ...] = (
    LadderModel(name="tiny-gpt2", n_layer=2, n_embd=2, n_head=2, n_inner=None, params=102_714),
    LadderModel(name="gpt2-5m", n_layer=12, n_embd=80, n_head=2, n_inner=320, params=5_036_720),
    LadderModel(name="gpt2-25m", n_layer=3, n_embd=384, n_head=2, n_inner=1536, params=25_016_064),
    LadderModel(name="gpt2-45m", n_layer=6, n_embd=512, n_head=8, n_inner=None, params=45_171_200),
    LadderModel(name="gpt2-50m", n_layer=8, n_embd=512, n_head=2, n_inner=2048, params=51_475_968),
    LadderModel(name="gpt2-75m", n_layer=5, n_embd=768, n_head=2, n_inner=3072, params=74_824_704),
    LadderModel(name="gpt2-100m", n_layer=8, n_embd=768, n_head=2, n_inner=3072, params=96_088_320),
)
"""The ladder, smallest first."""


def ladder_model(name: str) -> LadderModel | None:
    """The ladder's model of this name, with or without ``models/`` before it, or ``None``."""
    bare = name.removeprefix(PREFIX)
    return next((model for model in LADDER if model.name == bare), None)
