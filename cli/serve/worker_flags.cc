#include "cli/serve/worker_flags.h"

#include <cstdlib>

#include "cli/commands.h"

namespace fathom::client {

WorkerFlags::WorkerFlags()
    : handed_{{"--dtype", "Type to compute in: auto, bfloat16, half, float", {}},
              {"--load-format", "auto, safetensors, raw, dummy", {}},
              {"--threads", "Threads of each worker on the CPU", {}},
              {"--gpu-memory-utilization", "Share of a GPU's memory that a worker takes", {}},
              {"--kv-cache-memory", "Bytes for KV blocks, e.g. 512M", {}},
              {"--swap-space",
               "Memory of the host for the KV of preempted sequences of each worker, in GiB",
               {}},
              {"--block-size", "Tokens in a KV block", {}},
              {"--max-model-len", "Longest prompt and answer together: tokens, or auto", {}},
              {"--max-num-seqs", "Sequences computed at once", {}},
              {"--max-num-batched-tokens", "Tokens computed in one step", {}},
              {"--speculative-config", "Speculative decoding: a JSON object as vLLM takes it", {}},
              {"--speculative-method", "Who proposes drafts: ngram, draft", {}},
              {"--speculative-model", "Folder of the draft model", {}},
              {"--num-speculative-tokens", "Drafts for each token", {}},
              {"--nccl-interface",
               "Network interface by which NCCL reaches ranks on other hosts",
               {}}} {}

void WorkerFlags::AddTo(Flags& flags, ServeOptions* options) {
  flags.Group("Model");
  flags.Add("--model", &options->model, "Model folder (config.json, safetensors, tokenizer.json)");
  flags.Add("--hf-overrides", &options->hf_overrides,
            "JSON object that changes config.json; null takes a key away");
  flags.AddChoice("--device", &options->device, {"auto", "cpu", "cuda"},
                  "Where the workers compute");
  flags.Add("--tensor-parallel-size,-tp", &options->tp, 1, 64, "Workers that share a layer");
  flags.Add("--pipeline-parallel-size,-pp", &options->pp, 1, 64,
            "Stages, each with some of the layers");
  for (Handed& one : handed_) {
    if (&one == &handed_[2]) flags.Group("Limits");
    flags.Add(one.flag, &one.value, one.help);
  }
  flags.Group("GPU");
  flags.Add("--enforce-eager", &enforce_eager_, "No CUDA graphs");
  flags.AddChoice("--nccl-debug", &options->nccl_debug, {"off", "WARN", "INFO", "TRACE"},
                  "What NCCL writes, into worker-I.nccl.log of the run directory");
  flags.Add("--diagnose-numerics", &diagnose_numerics_, "Name the op of a non-finite value; slow");
  flags.Add("--allow-shared-device", &options->allow_shared_device,
            "All workers share the first GPU and divide its memory; for tests");
}

absl::Status WorkerFlags::HandOver(ServeOptions* options) const {
  if (options->model.empty()) {
    return Invalid("--model is missing; give a model folder, e.g. models/fathom-tiny");
  }
  for (const Handed& one : handed_) {
    if (one.value) options->worker_flags.emplace_back(one.flag, *one.value);
  }
  if (enforce_eager_) options->worker_switches.emplace_back("--enforce-eager");
  if (diagnose_numerics_) options->worker_switches.emplace_back("--diagnose-numerics");
  if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) {
    options->visible_gpus = SplitCommas(gpus);
  }
  if (options->allow_shared_device) options->worker_switches.emplace_back("--allow-shared-device");
  return absl::OkStatus();
}

}  // namespace fathom::client
