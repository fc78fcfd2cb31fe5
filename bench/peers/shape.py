"""The model, the adapter and the measurements that the peers share."""

import resource
import sys

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaConfig

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load_model(folder):
    """The model of a Hugging Face folder, or random weights of SmolLM2-135M's shape; float32."""
    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="default", rope_theta=100000.0),
            bos_token_id=1,
            eos_token_id=2,
        ),
        dtype=torch.float32,
    )


def lora():
    return LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, lora_dropout=0.0, task_type="CAUSAL_LM")


def peak_gb():
    """The largest resident size of this process so far, in GB (10^9 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
