#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan/cpu_plan_report.h"
#include "cli/plan/plan_report.h"
#include "common/output.h"
#include "modeling/architectures/architecture.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom::client {
namespace {

// The name of the folder or of the file: "deepseek-llm-7b".
std::string NameOf(const std::string& model) {
  std::filesystem::path path = std::filesystem::path(model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.extension() == ".json" ? path.stem().string() : path.filename().string();
}

int BadModel(const absl::Status& status) {
  Fail("plan", status);
  return kExitBadModel;
}

template <class Report>
int Print(const absl::StatusOr<Report>& report, bool json) {
  if (!report.ok()) {
    Fail("plan", report.status());
    return kExitUsage;  // As in the worker: other flags or another machine are needed.
  }
  PrintAnswer("{}", json ? ToJson(*report).dump() + "\n" : ToText(*report));
  return kExitOk;
}

}  // namespace

int RunPlan(int argc, const char* const* argv) {
  std::string model, hf_overrides;
  PlanFlags plan;
  bool json = false;
  Flags flags("fathom plan",
              "Where the bytes of a GPU, or of a worker on the CPU, go in each stage, from "
              "config.json alone: "
              "no weights, no GPU needed.");
  flags.Group("Model");
  flags.Add("--model", &model, "Model folder, or a config.json (models/shapes/*.json)");
  flags.Add("--hf-overrides", &hf_overrides,
            "JSON object that changes config.json; null takes a key away");
  flags.AddChoice("--dtype", &plan.dtype, {"auto", "bfloat16", "half", "float"},
                  "Type to compute in; auto: as stored");
  flags.AddChoice("--device", &plan.device, {"auto", "cpu", "cuda"},
                  "Where the workers compute; auto: on GPUs");
  flags.Add("--tensor-parallel-size,-tp", &plan.tp, 1, 64, "Workers that share a layer");
  flags.Add("--pipeline-parallel-size,-pp", &plan.pp, 1, 64,
            "Stages, each with some of the layers");
  flags.Group("GPU");
  flags.Add("--gpu", &plan.gpu, fmt::format("{}; or its memory in bytes: 80G", GpuCardNames()));
  flags.Add("--gpu-memory-utilization", &plan.gpu_memory_utilization, 0.1, 0.99,
            "Share of its memory that a worker may take");
  flags.Group("Limits");
  flags.AddBytes(
      "--kv-cache-memory", &plan.kv_cache_bytes,
      "Bytes for KV blocks; 0: what is left, on the CPU what the limits need, at most 512M");
  flags.Add("--block-size", &plan.block_tokens, 0, 1024,
            "Tokens in a KV block; 0: 64 on a GPU, 16 on the CPU");
  flags.Add("--max-model-len", &plan.context,
            "Longest prompt and answer together; auto: the model's, or what fits");
  flags.Add("--max-num-seqs", &plan.slots, 0, 4096,
            "Sequences computed at once; 0: 256, fewer where few blocks are left; 64 on the CPU");
  flags.Add("--max-num-batched-tokens", &plan.step_tokens, 0, 65536,
            "Tokens computed in one step; 0: what keeps a step under 40 ms; 512 on the CPU");
  flags.Group("Output");
  flags.Add("--json", &json, "One JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (model.empty()) {
    return Fail("plan", Invalid("--model is missing; give a model folder or a config.json, e.g. "
                                "models/shapes/deepseek-llm-7b.json"));
  }
  const auto config = ReadModelConfig(model, hf_overrides);
  if (!config.ok()) return BadModel(config.status());
  const ModelSpec spec = SpecOf(*config);
  if (const auto status = CheckTensorParallel(spec, plan.tp); !status.ok()) return BadModel(status);
  if (const auto status = CheckStages(spec, plan.pp); !status.ok()) return BadModel(status);
  const std::string name = NameOf(model);
  if (plan.on_cpu()) return Print(MakeCpuPlanReport(name, *config, plan), json);
  return Print(MakePlanReport(name, *config, plan), json);
}

}  // namespace fathom::client
