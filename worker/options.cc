#include "worker/options.h"

#include <algorithm>
#include <utility>

#include "common/address.h"
#include "common/flags.h"
#include "common/output.h"
#include "common/request_limits.h"
#include "kernels/cuda/comm/peer_region.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/layout/gpu_cards.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {
namespace {

void AddSpeculation(SpeculativeFlags* speculative, Flags* flags) {
  flags->Group("Speculative decoding");
  flags->Add("--speculative-config", &speculative->config,
             "JSON object as vLLM takes it: method, num_speculative_tokens, model, "
             "prompt_lookup_min, prompt_lookup_max.");
  flags->Add("--speculative-method", &speculative->method,
             "ngram: drafts are looked up in the text so far; draft: a small model proposes them.");
  flags->Add("--speculative-model", &speculative->model,
             "Folder of the draft model; it needs the vocabulary of --model.");
  flags->Add("--num-speculative-tokens", &speculative->tokens, 0, kDraftsMax,
             "Drafts for each token; 0: 4.");
}

void AddProcess(Options* options, Flags* flags) {
  AddClusterTlsFlags(&options->cluster_tls, flags);
  flags->Group("Process");
  flags->Add("--host", &options->host, "Address to listen on.");
  flags->AddPort("--port", &options->port, "Port of the health and reflection services.");
  flags->AddPort("--metrics-port", &options->metrics_port,
                 "Port of HTTP: /health, /metrics, /version.");
  flags->Add(
      "--drain-timeout", &options->drain_timeout_s, 0, 3600,
      "Seconds that the sequences of this worker's group get after SIGTERM, if no other group "
      "can take them; then they wait for one.");
  AddProcessFlags(&options->process, flags);
}

void AddFlags(Options* options, Flags* flags) {
  flags->Group("Model");
  flags->Add("--model", &options->model,
             "Model folder (Hugging Face): config.json and safetensors.");
  flags->AddChoice("--device", &options->device, {"auto", "cpu", "cuda"}, "Where to compute.");
  flags->AddChoice("--dtype", &options->dtype, {"auto", "bfloat16", "half", "float"},
                   "auto: on the CPU weights as stored and all else in float; on a GPU as stored.");
  flags->Add("--load-format", &options->load_format,
             "auto, safetensors, raw (weights.raw), or dummy (random weights).");
  flags->Add("--hf-overrides", &options->hf_overrides,
             "JSON object that changes config.json (a merge patch: null takes a key away); the "
             "router needs the same.");
  flags->Group("Cluster");
  flags->Add("--scheduler", &options->schedulers,
             "host:port of a scheduler; once for each one, or separated by commas.");
  flags->Add("--tensor-parallel-size,-tp", &options->tp, 1, 64, "Workers that share a layer.");
  flags->Add("--pipeline-parallel-size,-pp", &options->pp, 1, 64,
             "Stages, each with some of the layers; a group has -tp times -pp workers.");
  flags->Add("--rank-hint,--rank", &options->rank_hint, -1, 4095,
             "Order in which a host's workers take ranks; -1: none.");
  flags->Add(
      "--host-id", &options->host_id,
      "What tells this machine from others; empty: the kernel's boot id. For virtual machines "
      "that were resumed from one snapshot and have one boot id.");
  flags->Group("Limits");
  flags->Add(
      "--threads", &options->threads, 0, 1024,
      "Threads on the CPU; 0: by the CPUs that the process may use, its control group's quota "
      "included.");
  flags->Add(
      "--local-workers", &options->local_workers, 0, 4096,
      "Workers that share this machine: its CPUs, which decides the default of --threads, and "
      "a control group's memory; 0: as many as a group has.");
  flags->Add("--gpu-memory-utilization", &options->gpu_memory_utilization, 0.1, 0.99,
             "Share of the GPU's memory that the worker may take.");
  flags->AddBytes("--kv-cache-memory", &options->kv_cache_bytes,
                  "Bytes for KV blocks; 0: on a GPU what is left, on the CPU what the limits below "
                  "need, at most 512M.");
  flags->AddGibibytes("--swap-space", &options->swap_bytes,
                      "Memory of the host, in GiB or like 16G, that keeps the KV of preempted "
                      "sequences of this rank; 0: they are computed again.");
  flags->Add("--block-size", &options->block_tokens, 0, 128,
             "Tokens in a KV block: 16, 32, 64 or 128; 64 on a GPU. 0: 16, or 64 on a GPU.");
  flags->Add("--max-model-len", &options->context,
             "Longest prompt and answer together, in tokens; auto: the model's, or what memory can "
             "hold.");
  flags->Add("--max-num-seqs", &options->slots, 0, 4096,
             "Sequences computed at once; 0: 64, or by the memory plan on a GPU.");
  flags->Add("--max-num-batched-tokens", &options->step_tokens, 0, 65536,
             "Tokens computed in one step; 0: 512, or what keeps a step under 40 ms on a GPU.");
  AddSpeculation(&options->speculative_flags, flags);
  flags->Group("GPU");
  flags->Add("--enforce-eager", &options->enforce_eager, "No CUDA graphs.");
  flags->Add("--diagnose-numerics", &options->diagnose_numerics,
             "Check after every op, and name the layer and op of a non-finite value. Slow.");
  flags->Add("--allow-shared-device", &options->allow_shared_device,
             "The workers of this machine share one GPU and divide its memory. For tests.");
  flags->Add("--nccl-interface", &options->nccl_interface,
             "Network interface by which NCCL reaches ranks on other hosts.");
  flags->AddChoice("--nccl-debug", &options->nccl_debug, {"off", "WARN", "INFO", "TRACE"},
                   "What NCCL writes, into the file of --nccl-debug-file.");
  flags->Add("--nccl-debug-file", &options->nccl_debug_file,
             "File of --nccl-debug, bounded like a log; empty: fathom-nccl-PID.log.");
  AddProcess(options, flags);
}

absl::Status Check(Options* options) {
  if (options->model.empty()) {
    return Invalid("--model is missing; give a model folder, e.g. models/fathom-tiny");
  }
  FATHOM_RETURN_IF_ERROR(CheckGroupShape(options->shape()));
  FATHOM_ASSIGN_OR_RETURN(options->context_tokens, ParseContextTokens(options->context));
  FATHOM_ASSIGN_OR_RETURN(options->schedulers, ParseAddresses("--scheduler", options->schedulers));
  FATHOM_ASSIGN_OR_RETURN(options->speculative, ReadSpeculativeConfig(options->speculative_flags));
  if (options->speculative.method != SpeculativeMethod::kNone && options->pp > 1) {
    return Invalid(
        "--pipeline-parallel-size {} with speculative decoding: only one stage can speculate so "
        "far, because only the last one has the tokens; use -tp, or drop --speculative-config",
        options->pp);
  }
  return absl::OkStatus();
}

absl::Status CheckCpu(const Options& options) {
  if (options.dtype != "auto") {
    return Invalid(
        "--dtype {}: on the CPU weights stay as stored and everything else is float; use --dtype "
        "auto",
        options.dtype);
  }
  if (options.block_tokens != 16 && options.block_tokens != 32 && options.block_tokens != 64 &&
      options.block_tokens != 128) {
    return Invalid("--block-size {}: a block has 16, 32, 64 or 128 tokens", options.block_tokens);
  }
  if (options.step_tokens < options.slots) {
    return Invalid(
        "--max-num-batched-tokens {} is less than --max-num-seqs {}: each running sequence takes "
        "one",
        options.step_tokens, options.slots);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveDevice(bool cuda, Options* options) {
  options->device = cuda ? "cuda" : "cpu";
  if (cuda) {
    if (options->tp > kernels::cuda::kCommRanksMax) {
      return Invalid(
          "--tensor-parallel-size {} with --device cuda: GPUs share a layer in groups of 1 to {}; "
          "use -dp for more copies",
          options->tp, kernels::cuda::kCommRanksMax);
    }
    if (options->pp > kernels::cuda::kCommRanksMax) {
      return Invalid(
          "--pipeline-parallel-size {} with --device cuda: a model is divided into 1 to {} stages "
          "on GPUs; use -tp to divide each layer, or --device cpu",
          options->pp, kernels::cuda::kCommRanksMax);
    }
    if (options->block_tokens == 0) options->block_tokens = kCudaBlockTokens;
    return absl::OkStatus();
  }
  if (options->block_tokens == 0) options->block_tokens = kCpuBlockTokens;
  if (options->step_tokens == 0) options->step_tokens = std::max(kCpuStepTokens, options->slots);
  if (options->slots == 0) options->slots = std::min(kCpuSlots, options->step_tokens);
  return CheckCpu(*options);
}

absl::StatusOr<kernels::DType> CudaDType(const Options& options, StoredType stored) {
  if (options.dtype == "bfloat16") return kernels::DType::kBf16;
  if (options.dtype == "half") return kernels::DType::kF16;
  if (options.dtype == "float") {
    return Invalid(
        "--dtype float with --device cuda: the products are defined for bfloat16 and half; use one "
        "of them, or --device cpu");
  }
  return stored == StoredType::kF16 ? kernels::DType::kF16 : kernels::DType::kBf16;
}

static CudaMemoryRequest RequestFor(const Options& options, kernels::DType dtype,
                                    const DeviceFacts& device) {
  CudaMemoryRequest request;
  request.capacity_bytes = device.capacity_bytes;
  request.taken_bytes = device.taken_bytes;
  request.utilization = options.gpu_memory_utilization;
  request.kv_cache_bytes = options.kv_cache_bytes;
  request.swap_bytes = options.swap_bytes;
  request.dtype = dtype;
  if (options.allow_shared_device) {
    request.taken_bytes = 0;  // That of the other workers, which take their part of the share.
    request.utilization /= LocalWorkers(options);
  }
  request.tp = options.tp;
  request.stages = options.pp;
  request.block_tokens = options.block_tokens;
  request.context_tokens = options.context_tokens;
  request.slots = options.slots;
  request.step_tokens = options.step_tokens;
  request.draft_max = options.speculative.draft_tokens;
  if (const GpuCard* card = GpuCardOfDevice(device.name)) SetCard(*card, &request);
  return request;
}

absl::StatusOr<std::vector<CudaMemoryPlan>> PlansFor(const Options& options,
                                                     const ModelConfig& config,
                                                     kernels::DType dtype,
                                                     const DeviceFacts& device) {
  return PlanCudaStages(SpecOf(config), RequestFor(options, dtype, device));
}

absl::StatusOr<CudaPlansWithDraft> PlansWithDraftFor(const Options& options,
                                                     const ModelConfig& config,
                                                     const ModelConfig& draft, kernels::DType dtype,
                                                     const DeviceFacts& device) {
  FATHOM_RETURN_IF_ERROR(CheckDraftModel(config, draft));
  return PlanCudaWithDraft(SpecOf(config), SpecOf(draft), RequestFor(options, dtype, device));
}

std::optional<int> ParseOptions(int argc, char** argv, Options* options) {
  Flags flags("fathom-worker",
              "Computes one rank's share of a model, step by step as the scheduler plans.");
  AddFlags(options, &flags);
  if (const auto code = flags.Parse(argc, argv)) return code;
  if (const absl::Status status = Check(options); !status.ok()) {
    Diagnose("fathom-worker: {}", Message(status));
    return kExitUsage;
  }
  return std::nullopt;
}

absl::Status CheckDraftModel(const ModelConfig& config, const ModelConfig& draft) {
  if (draft.vocab == config.vocab) return absl::OkStatus();
  return Invalid(
      "--speculative-model: its vocabulary has {} tokens and that of --model {}; a draft model "
      "needs the model's tokenizer",
      draft.vocab, config.vocab);
}

absl::StatusOr<Sizes> SizesFor(const Options& options, const ModelConfig& config,
                               const ModelConfig* draft) {
  if (options.context_tokens > config.context) {
    return Invalid(
        "--max-model-len {} is more than the model's context of {} (max_position_embeddings)",
        options.context_tokens, config.context);
  }
  Sizes sizes;
  sizes.limits.context_tokens =
      options.context_tokens > 0 ? options.context_tokens : config.context;
  sizes.limits.block_tokens = options.block_tokens;
  sizes.limits.slots = options.slots;
  sizes.limits.step_tokens = options.step_tokens;
  sizes.limits.vocab = config.vocab;
  sizes.limits.draft_max = options.speculative.draft_tokens;
  MemoryRequest request;
  request.tp = options.tp;
  request.stages = options.pp;
  request.stored_type = config.stored_type.value_or(StoredType::kBf16);
  request.block_tokens = options.block_tokens;
  request.step_tokens = options.step_tokens;
  request.logits_rows = LogitsRows(sizes.limits);
  request.context_tokens = options.context_tokens;
  request.kv_cache_bytes = options.kv_cache_bytes > 0 ? options.kv_cache_bytes : kCpuKvCacheBytes;
  request.slots = options.slots;
  request.swap_bytes = options.swap_bytes;
  FATHOM_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(SpecOf(config), request));
  sizes.limits.pool_blocks = plan.blocks;
  sizes.limits.host_blocks = plan.host_blocks;
  sizes.kv_cache_bytes = plan.kv_bytes;
  sizes.total_bytes = plan.total_bytes;
  if (draft == nullptr) return sizes;
  FATHOM_RETURN_IF_ERROR(CheckDraftModel(config, *draft));
  // Each rank has the whole draft model, with planes for as many blocks as the pool.
  const ModelSpec spec = SpecOf(*draft);
  request.tp = 1;
  request.stored_type = draft->stored_type.value_or(StoredType::kBf16);
  request.context_tokens = std::min(sizes.limits.context_tokens, draft->context);
  request.kv_cache_bytes =
      int64_t{plan.blocks} * KvBytes(RankOf(spec, {}), 4, request.block_tokens);
  request.slots = 0;
  FATHOM_ASSIGN_OR_RETURN(const MemoryPlan draft_plan, PlanMemory(spec, request));
  sizes.draft_bytes = draft_plan.total_bytes;
  sizes.total_bytes += sizes.draft_bytes;
  return sizes;
}

int32_t LocalWorkers(const Options& options) {
  return std::max({options.local_workers, options.shape().ranks(), 1});
}

int ThreadsFor(const Options& options, int cpus) {
  if (options.threads > 0) return options.threads;
  return std::max(1, cpus / LocalWorkers(options) - 1);
}

std::vector<OwnPort> OwnPorts(const Options& options, int port, int metrics_port) {
  return {{"--port", options.host, port, OwnPort::Http2(options.cluster_tls.on())},
          {"--metrics-port", options.host, metrics_port, OwnPort::Speaks::kHttp1}};
}

}  // namespace fathom::worker
