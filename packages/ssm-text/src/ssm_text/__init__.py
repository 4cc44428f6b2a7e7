"""Character language models on state space layers, their data, and generation step by step."""

from __future__ import annotations

from ssm_text.causal_lm import CausalLM
from ssm_text.char_lm import CharLM, CharLMConfig
from ssm_text.data.codec import codec_of
from ssm_text.data.tokenizer import Tokenizer
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.generate import generate
from ssm_text.mamba_lm import MambaLM
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.official import from_official
from ssm_text.sampling import Sampling
from ssm_text.saved_state import load_state, save_state
from ssm_text.scoring import score
from ssm_text.texts import Texts
from ssm_text.writer import load_writer

__version__ = "0.1.0"

__all__ = [
    "CausalLM",
    "CharLM",
    "CharLMConfig",
    "MambaLM",
    "MambaLMConfig",
    "Sampling",
    "Texts",
    "Tokenizer",
    "Vocabulary",
    "codec_of",
    "from_official",
    "generate",
    "load_state",
    "load_writer",
    "save_state",
    "score",
]
