"""PyTorch transformers on a published shape with random weights, static cache and compiled decode step: transformers_peer.py
CONFIG; lines of JSON. Decode is (t(129) - t(1)) / 128, the least of 3; first token the median of 5."""
import json
import statistics
import sys
import time

import torch
import transformers


def main():
    config = transformers.LlamaConfig(**json.load(open(sys.argv[1], encoding="utf-8")))
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    torch.manual_seed(1)

    def generate(prompt, output):
        ids = torch.randint(10, config.vocab_size - 10, (1, prompt), device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=output, min_new_tokens=output, do_sample=False,
                                 cache_implementation="static", pad_token_id=0)
        torch.cuda.synchronize()
        assert out.shape[1] == prompt + output
        return time.perf_counter() - begin

    for _ in range(2):
        generate(128, 129)
    short = min(generate(128, 1) for _ in range(3))
    long = min(generate(128, 129) for _ in range(3))
    print(json.dumps({"id": "transformers_decode_7b_b1_ms", "value": (long - short) / 128 * 1e3, "unit": "ms"}), flush=True)
    for tokens in (128, 512, 2048):
        generate(tokens, 1)
        first = statistics.median(generate(tokens, 1) for _ in range(5))
        print(json.dumps({"id": f"transformers_ttft_7b_{tokens}_ms", "value": first * 1e3, "unit": "ms"}), flush=True)


if __name__ == "__main__":
    main()
