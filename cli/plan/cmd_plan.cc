#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan/cpu_plan_report.h"
#include "cli/plan/plan_report.h"
#include "cli/plan/plan_table.h"
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

constexpr size_t kTableModelsMax = 100;

struct PlanOptions {
  std::vector<std::string> models;
  std::string hf_overrides;
  PlanFlags plan;
  bool table = false;
  bool json = false;
};

void AddFlags(Flags& flags, PlanOptions* o) {
  PlanFlags& plan = o->plan;
  flags.Group("Model");
  flags.Add("--model", &o->models,
            "Model folder, or a config.json (models/shapes/*.json); with --table several, or a "
            "folder of such files");
  flags.Add("--hf-overrides", &o->hf_overrides,
            "JSON object that changes config.json; null takes a key away");
  flags.AddChoice("--dtype", &plan.dtype, {"auto", "bfloat16", "half", "float"},
                  "Type to compute in; auto: as stored");
  flags.AddChoice("--device", &plan.device, {"auto", "cpu", "cuda"},
                  "Where the workers compute; auto: on GPUs");
  flags.Add("--tensor-parallel-size,-tp", &plan.tp, 1, 64, "Workers that share a layer");
  flags.Add("--pipeline-parallel-size,-pp", &plan.pp, 1, 64,
            "Stages, each with some of the layers");
  flags.Group("GPU");
  flags.Add("--gpu", &plan.gpu,
            fmt::format("{}; or its memory in bytes: 80G (default: h100; with --table all, or "
                        "several with commas)",
                        GpuCardNames()));
  flags.Add("--gpu-memory-utilization", &plan.gpu_memory_utilization, 0.1, 0.99,
            "Share of its memory that a worker may take");
  flags.Group("Limits");
  flags.AddBytes(
      "--kv-cache-memory", &plan.kv_cache_bytes,
      "Bytes for KV blocks; 0: what is left, on the CPU what the limits need, at most 512M");
  flags.AddGibibytes("--swap-space", &plan.swap_bytes,
                     "Memory of the host for the KV of preempted sequences of each rank, in GiB");
  flags.Add("--block-size", &plan.block_tokens, 0, 1024,
            "Tokens in a KV block; 0: 64 on a GPU, 16 on the CPU");
  flags.Add("--max-model-len", &plan.context,
            "Longest prompt and answer together; auto: the model's, or what fits");
  flags.Add("--max-num-seqs", &plan.slots, 0, 4096,
            "Sequences computed at once; 0: 256, fewer where few blocks are left; 64 on the CPU");
  flags.Add("--max-num-batched-tokens", &plan.step_tokens, 0, 65536,
            "Tokens computed in one step; 0: what keeps a step under 40 ms; 512 on the CPU");
  flags.Group("Output");
  flags.Add("--table", &o->table,
            "Which of the models fits which card, with how many GPUs, at --max-model-len and "
            "--max-num-seqs (without --model: models/shapes)");
  flags.Add("--json", &o->json, "One JSON object");
}

// The files that --model names: a folder without config.json stands for its *.json.
absl::StatusOr<std::vector<std::string>> TableFiles(const std::vector<std::string>& models) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& model : models) {
    std::error_code error;
    if (!fs::is_directory(model, error) || fs::exists(fs::path(model) / "config.json", error)) {
      files.push_back(model);
      continue;
    }
    const size_t before = files.size();
    for (const auto& entry : fs::directory_iterator(model, error)) {
      if (entry.path().extension() == ".json") files.push_back(entry.path().string());
    }
    if (files.size() == before) return NotFound("--model {} has no *.json in it", model);
    std::sort(files.begin() + static_cast<ptrdiff_t>(before), files.end());
  }
  if (files.size() > kTableModelsMax) {
    return Invalid("--model gives {} models, at most {} make a table", files.size(),
                   kTableModelsMax);
  }
  return files;
}

int RunTable(const PlanOptions& o) {
  const std::vector<std::string> shapes = {"models/shapes"};
  if (o.plan.on_cpu()) return Fail("plan", Invalid("--table has GPUs; leave --device cpu out"));
  if (o.models.empty() && !std::filesystem::is_directory(shapes[0])) {
    return Fail("plan", Invalid("--table without --model takes models/shapes, which is not here; "
                                "give --model FOLDER, once or several times"));
  }
  std::vector<std::string> cards = SplitCommas(o.plan.gpu);
  if (cards.empty()) {
    for (const GpuCard& card : GpuCards()) cards.emplace_back(card.name);
  }
  for (const std::string& card : cards) {
    if (FindGpuCard(card) != nullptr) continue;
    return Fail("plan", Invalid("--gpu {}: with --table one of {}", card, GpuCardNames()));
  }
  const auto files = TableFiles(o.models.empty() ? shapes : o.models);
  if (!files.ok()) return Fail("plan", files.status());
  std::vector<TableModel> models;
  for (const std::string& file : *files) {
    const auto config = ReadModelConfig(file, o.hf_overrides);
    if (!config.ok()) return BadModel(config.status());
    models.push_back({NameOf(file), *config});
  }
  return Print(MakePlanTable(models, cards, o.plan), o.json);
}

}  // namespace

int RunPlan(int argc, const char* const* argv) {
  PlanOptions o;
  o.plan.gpu.clear();
  Flags flags("fathom plan",
              "Where the bytes of a GPU, or of a worker on the CPU, go in each stage, from "
              "config.json alone: no weights, no GPU needed.");
  AddFlags(flags, &o);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (o.table) return RunTable(o);
  if (o.plan.gpu.empty()) o.plan.gpu = PlanFlags().gpu;
  if (o.models.size() != 1) {
    return Fail("plan", Invalid("--model {}; give a model folder or a config.json, e.g. "
                                "models/shapes/deepseek-llm-7b.json{}",
                                o.models.empty() ? "is missing" : "was given more than once",
                                o.models.empty() ? "" : ", or --table for several"));
  }
  const std::string& model = o.models.front();
  const auto config = ReadModelConfig(model, o.hf_overrides);
  if (!config.ok()) return BadModel(config.status());
  const ModelSpec spec = SpecOf(*config);
  if (const auto status = CheckTensorParallel(spec, o.plan.tp); !status.ok()) {
    return BadModel(status);
  }
  if (const auto status = CheckStages(spec, o.plan.pp); !status.ok()) return BadModel(status);
  const std::string name = NameOf(model);
  if (o.plan.on_cpu()) return Print(MakeCpuPlanReport(name, *config, o.plan), o.json);
  return Print(MakePlanReport(name, *config, o.plan), o.json);
}

}  // namespace fathom::client
