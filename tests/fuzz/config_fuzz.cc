// config.json, generation_config.json and an index: an accepted input satisfies the invariants of
// its type.
#include <cmath>

#include "common/check.h"
#include "common/json.h"
#include "kernels/rope_kv_write.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint_check.h"
#include "modeling/config/generation_config.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/rope_spec.h"
#include "tests/fuzz/fuzz.h"

namespace fathom {
namespace {

// Every rotary table of an accepted configuration has finite numbers, at most as large as its
// factor.
void CheckRope(const ModelConfig& config) {
  const kernels::RopeTable table =
      kernels::MakeRopeTable(RopeSpecOf(config.rope, config.head_dim), 3);
  const double most = config.rope.attention_factor * (1 + 1e-6);
  for (const auto* values : {&table.cos, &table.sin}) {
    for (const float value : *values) FATHOM_CHECK(std::fabs(value) <= most, "{}", value);
  }
}

// A text that is merged with itself stays the same, except that nulls are removed.
void CheckMerge(std::string_view text, const ModelConfig& config) {
  const auto merged = MergePatch(text, text, {});
  FATHOM_CHECK(merged.ok());
  const auto again = ParseModelConfig(*merged);
  if (again.ok() && text.find("null") == std::string_view::npos) FATHOM_CHECK(*again == config);
}

void CheckInvariants(const ModelConfig& config) {
  FATHOM_CHECK(config.layers > 0 && config.hidden > 0 && config.heads > 0 && config.kv_heads > 0 &&
               config.ffn > 0 && config.vocab > 0 && config.context > 0);
  FATHOM_CHECK(config.heads % config.kv_heads == 0 && config.head_dim > 0 &&
               config.head_dim % 2 == 0);
  FATHOM_CHECK(config.rms_eps > 0 && config.rope.theta >= 1 && config.rope.factor >= 1);
  FATHOM_CHECK(FindArchitecture(config.architecture) != nullptr);
  for (const int32_t id : config.end_ids) FATHOM_CHECK(id >= 0 && id < config.vocab);
  CheckRope(config);
  MemoryRequest request;
  request.stored_type = StoredType::kF32;
  request.block_tokens = 128;
  request.step_tokens = request.logits_rows = INT32_MAX;
  request.kv_cache_bytes = INT64_MAX;
  if (config.layers > 8) return;  // The list of tensors is long and tests nothing more.
  FATHOM_CHECK(CheckTensorParallel(SpecOf(config), 1).ok());
  const auto plan = PlanMemory(SpecOf(config), request);
  FATHOM_CHECK(plan.ok() && plan->weights_bytes > 0 && plan->activation_bytes > 0);
}

void CheckInvariants(const GenerationConfig& config) {
  for (const int32_t id : config.end_ids) FATHOM_CHECK(id >= 0 && id < 8);
  for (const int32_t id : config.suppressed_ids) FATHOM_CHECK(id >= 0 && id < 8);
  FATHOM_CHECK(config.suppressed_ids.size() < 8 && config.stop_strings.size() <= 16);
  FATHOM_CHECK(config.top_k.value_or(0) >= 0 && config.top_k.value_or(0) < 8);
  FATHOM_CHECK(config.top_p.value_or(1) > 0 && config.top_p.value_or(1) <= 1);
  FATHOM_CHECK(config.min_p.value_or(0) >= 0 && config.min_p.value_or(0) <= 1);
  FATHOM_CHECK(config.temperature.value_or(0) >= 0 && config.repetition_penalty.value_or(1) > 0);
  FATHOM_CHECK(config.typical_p.value_or(1) > 0 && config.typical_p.value_or(1) <= 1);
  ForEachSamplingField([&](const SamplingField&, auto, auto option) {
    FATHOM_CHECK(std::isfinite((config.*option).value_or(0)));
  });
  FATHOM_CHECK(config.min_new_tokens.value_or(0) >= 0);
}

void FuzzJson(std::string_view text) {
  const auto config = ParseModelConfig(text);
  if (config.ok()) {
    CheckInvariants(*config);
    CheckMerge(text, *config);
  }
  for (const auto& generation :
       {ParseGenerationConfig(text, 8), ParseGenerationConfig("{}", 8, text),
        ParseGenerationConfig(R"({"top_k": 3, "eos_token_id": 1})", 8, text)}) {
    if (generation.ok()) CheckInvariants(*generation);
  }
  const auto map = ParseWeightMap(text);
  if (!map.ok()) return;
  for (const auto& [tensor, file] : *map) {
    FATHOM_CHECK(file.find('/') == std::string::npos && file.find("..") != 0);
  }
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzJson({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","num_hidden_layers":2,
          "hidden_size":8,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":4,
          "intermediate_size":12,"vocab_size":16,"max_position_embeddings":64,"rms_norm_eps":1e-06,
          "rope_theta":10000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,
          "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":256},
          "hidden_act":"silu","tie_word_embeddings":false,"torch_dtype":"bfloat16",
          "bos_token_id":0,"eos_token_id":[1,2]})",
      R"({"architectures":["Qwen3ForCausalLM"],"num_hidden_layers":1,"hidden_size":8,
          "num_attention_heads":2,"num_key_value_heads":2,"head_dim":8,"intermediate_size":12,
          "vocab_size":17,"max_position_embeddings":64,"use_sliding_window":true,
          "sliding_window":64,"max_window_layers":0,"rope_scaling":{"type":"yarn","factor":4.0,
          "original_max_position_embeddings":16,"beta_fast":32,"beta_slow":1,"truncate":true,
          "attn_factor":0.878,"mscale":1.0,"mscale_all_dim":0.5}})",
      R"({"architectures":["Qwen2ForCausalLM"],"num_hidden_layers":1,"hidden_size":8,
          "num_attention_heads":2,"num_key_value_heads":2,"intermediate_size":12,"vocab_size":16,
          "max_position_embeddings":64,"rms_norm_eps":1e-06,"dtype":"float16",
          "rope_parameters":{"rope_theta":1000000.0,"rope_type":"linear","factor":4},
          "layer_types":["full_attention"],"sliding_window":null,"use_sliding_window":false})",
      R"({"bos_token_id":0,"eos_token_id":[1,7],"do_sample":true,"temperature":0.7,"top_p":0.95,
          "top_k":20,"repetition_penalty":1.05,"transformers_version":"4.51.0"})",
      R"({"do_sample":false,"top_k":-1,"top_p":0,"min_new_tokens":3,"stop_strings":["a","b"],
          "suppress_tokens":[3],"bad_words_ids":[[2],[4]],"num_beams":1,"typical_p":0.2})",
      R"({"metadata":{"total_size":1},"weight_map":{"a":"model-00001-of-00002.safetensors",
          "b":"model-00002-of-00002.safetensors"}})",
  };
}
