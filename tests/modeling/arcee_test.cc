// The row of Arcee: its keys, its tensors, and the plans of both devices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using testing::ConfigRefusal;
using ::testing::HasSubstr;
using testing::SmallArcee;
using testing::WithKey;

std::string ConfigText() { return SmallArcee(1).config; }

TEST(Arcee, Configuration) {
  const ModelConfig config = testing::ParsedConfig(ConfigText());
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_FALSE(config.qkv_bias || config.qk_norm);
  // The defaults of the class in transformers.
  std::string text = ConfigText();
  for (const char* key : {"hidden_act", "num_key_value_heads", "max_position_embeddings",
                          "rms_norm_eps", "rope_theta"}) {
    text = WithKey(text, key, "");
  }
  const ModelConfig defaults = testing::ParsedConfig(text);
  EXPECT_EQ(defaults.kv_heads, 4);
  EXPECT_EQ(defaults.context, 4096);
  EXPECT_EQ(defaults.rms_eps, 1e-5);
}

TEST(Arcee, OtherActivationsAndBiasesAreRefused) {
  EXPECT_THAT(ConfigRefusal(WithKey(ConfigText(), "hidden_act", "\"silu\"")),
              HasSubstr("hidden_act is \"silu\"; only \"relu2\" is supported"));
  EXPECT_THAT(ConfigRefusal(WithKey(ConfigText(), "mlp_bias", "true")),
              HasSubstr("mlp_bias is true"));
  EXPECT_THAT(ConfigRefusal(WithKey(testing::TinyConfig(), "hidden_act", "\"relu2\"")),
              HasSubstr("only \"silu\" is supported"));
}

TEST(Arcee, AnMlpHasNoGate) {
  const ModelSpec spec = SpecOf(testing::ParsedConfig(ConfigText()));
  std::vector<std::string> mlp;
  for (const Parameter& each : ExpectedTensors(spec)) {
    if (each.name.starts_with("model.layers.1.mlp.")) mlp.push_back(each.name);
  }
  EXPECT_EQ(mlp, (std::vector<std::string>{"model.layers.1.mlp.up_proj.weight",
                                           "model.layers.1.mlp.down_proj.weight"}));
  // 2 layers: q and o of 32 x 32, k and v of 16 x 32, up and down of 48 x 32.
  EXPECT_EQ(LayerMatrixElements(spec), 2 * (2 * 32 * 32 + 2 * 16 * 32 + 2 * 48 * 32));
  EXPECT_EQ(WidestOf(RankOf(spec, {.tp = 2})).gate_up_rows, 24);
}

// A checkpoint with a gate is of another model.
TEST(Arcee, AGateIsRefused) {
  testing::ModelFiles model = SmallArcee(1);
  testing::StoredTensor gate = model.Tensor("model.layers.0.mlp.up_proj.weight");
  gate.name = "model.layers.0.mlp.gate_proj.weight";
  model.tensors.push_back(gate);
  const testing::TempFolder folder;
  testing::WriteModel(folder.path(), model);
  EXPECT_THAT(testing::FolderRefusal(folder.path()), HasSubstr(gate.name));
}

TEST(Arcee, TheCpuPlansItAndAGpuRefusesItByName) {
  const ModelSpec spec = SpecOf(testing::ParsedConfig(ConfigText()));
  MemoryRequest request;
  request.stored_type = StoredType::kF32;
  request.block_tokens = 16;
  request.step_tokens = 8;
  request.logits_rows = 2;
  request.kv_cache_bytes = 1 << 20;
  const auto cpu = PlanMemory(spec, request);
  ASSERT_TRUE(cpu.ok()) << ToString(cpu.status());
  const int64_t vectors = 2 * 2 * 32 + 32;
  EXPECT_EQ(cpu->weights_bytes, 4 * (LayerMatrixElements(spec) + 2 * 40 * 32 + vectors));
  EXPECT_EQ(cpu->kv_bytes_per_token, 4 * 2 * 2 * 16);  // 2 layers, keys and values, 2 heads of 8.
  // Residual and norm; q, k and v; attention; up alone; logits; rotary tables of 64 positions.
  EXPECT_EQ(cpu->activation_bytes, 4 * (8 * (2 * 32 + 64 + 32 + 48) + 2 * 40 + 64 * 8));

  CudaMemoryRequest on_gpu;
  on_gpu.capacity_bytes = int64_t{80} << 30;
  const auto gpu = PlanCudaMemory(spec, on_gpu);
  EXPECT_EQ(gpu.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(Message(gpu.status())),
            "ArceeForCausalLM: layer 0 has a squared-ReLU MLP, which a GPU does not compute in "
            "this version; use --device cpu");
}

}  // namespace
}  // namespace fathom
