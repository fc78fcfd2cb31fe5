"""GRPO by TRL: steps of P prompts x G samples, 64-token prompts and exactly 128 new tokens, LoRA r16, no KL, float32.

    python trl_grpo.py [--model FOLDER] [--prompts 1] [--samples 8] [--steps 3]
"""

import argparse
import random
import tempfile
import time

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from shape import load_model, lora, peak_gb

PROMPT, RESPONSE = 64, 128


class TimedTrainer(GRPOTrainer):
    """Adds up the seconds spent generating."""

    generating = 0.0

    def _generate_single_turn(self, *args, **kwargs):
        start = time.perf_counter()
        result = super()._generate_single_turn(*args, **kwargs)
        self.generating += time.perf_counter() - start
        return result


class Clock(TrainerCallback):
    """Prints a line for each step."""

    def __init__(self):
        self.trainer = None
        self.start = 0.0
        self.generated = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.start, self.generated = time.perf_counter(), self.trainer.generating

    def on_step_end(self, args, state, control, **kwargs):
        seconds = time.perf_counter() - self.start
        generating = self.trainer.generating - self.generated
        print(f"step {state.global_step}: {seconds:.1f} s, {generating:.1f} generating, peak {peak_gb():.2f} GB", flush=True)


def word_tokenizer(size):
    """One word for each id, so that a prompt of 64 words has exactly 64 tokens."""
    words = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, size))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<pad>", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def reward(completion_ids, **kwargs):
    """Differs between samples, so that no advantage is zero."""
    assert all(len(ids) == RESPONSE for ids in completion_ids), [len(ids) for ids in completion_ids]
    return [sum(ids) % 97 / 97 for ids in completion_ids]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face folder; random weights of SmolLM2-135M's shape without it")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = load_model(options.model)
    draw = random.Random(0)
    prompts = [
        " ".join(f"w{draw.randrange(100, model.config.vocab_size)}" for _ in range(PROMPT))
        for _ in range(options.prompts * options.steps)
    ]
    tokenizer = word_tokenizer(model.config.vocab_size)
    assert all(len(ids) == PROMPT for ids in tokenizer(prompts)["input_ids"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        clock.trainer = TimedTrainer(
            model=model,
            reward_funcs=reward,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            peft_config=lora(),
            callbacks=[clock],
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                fp16=False,
                gradient_checkpointing=False,  # faster; it fits
                per_device_train_batch_size=options.samples,
                gradient_accumulation_steps=options.prompts,
                num_generations=options.samples,
                max_completion_length=RESPONSE,
                generation_kwargs={"min_new_tokens": RESPONSE},
                temperature=1.0,
                beta=0.0,
                learning_rate=1e-5,
                max_steps=options.steps,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                seed=0,
            ),
        )
        clock.trainer.train()


if __name__ == "__main__":
    main()
