"""Plain PyTorch: training steps of 8 x 256 tokens (LoRA r16 and full fine-tuning) and decode of 8 sequences, float32.

    python torch_step.py [--model FOLDER] [--repeats 3] lora|full|decode
"""

import argparse
import statistics
import time

import torch
from peft import get_peft_model

from shape import load_model, lora, peak_gb

ROWS, LENGTH = 8, 256
PROMPT, RESPONSE = 64, 128


def training_step(model, repeats):
    """Seconds of forward, backward, clipping and AdamW over random tokens, each repeat."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    tokens = torch.randint(0, model.config.vocab_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    for _ in range(repeats):
        start = time.perf_counter()
        model(tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield time.perf_counter() - start


@torch.no_grad()
def decode(model, repeats):
    """Seconds of a decode step of 8 sequences at positions 64 to 191: logits, a draw, the KV cache; the mean of each repeat."""
    model.eval()
    tokens = torch.randint(0, model.config.vocab_size, (ROWS, PROMPT), generator=torch.Generator().manual_seed(0))
    for _ in range(repeats):
        out = model(tokens, use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(RESPONSE):
            drawn = torch.multinomial(torch.softmax(out.logits[:, -1], -1), 1)
            out = model(drawn, past_key_values=out.past_key_values, use_cache=True)
        yield (time.perf_counter() - start) / RESPONSE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["lora", "full", "decode"], help="one a process, so that its peak memory is its own")
    parser.add_argument("--model", help="a Hugging Face folder; random weights of SmolLM2-135M's shape without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = load_model(options.model)
    if options.work == "lora":
        model = get_peft_model(model, lora())
    run = decode if options.work == "decode" else training_step
    seconds = list(run(model, options.repeats))
    each = ", ".join(f"{1000 * s:.0f}" for s in seconds)
    print(f"{options.work}: median {1000 * statistics.median(seconds):.0f} ms ({each}), peak {peak_gb():.2f} GB")


if __name__ == "__main__":
    main()
