// The row of Qwen3: features of a configuration in the newer form, and tensors with q and k norms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;

std::string ConfigText() {
  return testing::ReadFile(std::filesystem::path(FATHOM_SOURCE_DIR) /
                           "tests/data/configs/qwen3.json");
}

TEST(Qwen3, ConfigurationInTheNewerForm) {
  const auto config = ParseModelConfig(ConfigText());
  ASSERT_TRUE(config.ok()) << ToString(config.status());
  EXPECT_EQ(config->architecture, "Qwen3ForCausalLM");
  EXPECT_TRUE(config->qk_norm);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_EQ(config->head_dim, 128);  // Not hidden / heads.
  EXPECT_EQ(config->rope, RopeConfig{.theta = 1e6});
  EXPECT_EQ(config->stored_type, StoredType::kBf16);
}

// As in a published checkpoint of this configuration.
TEST(Qwen3, TensorsOfALayer) {
  const auto config = ParseModelConfig(ConfigText());
  ASSERT_TRUE(config.ok());
  const std::string prefix = "model.layers.2.";
  std::map<std::string, std::vector<int64_t>> layer;
  for (const Parameter& spec : ExpectedTensors(SpecOf(*config))) {
    if (spec.name.starts_with(prefix)) layer[spec.name.substr(prefix.size())] = spec.shape;
  }
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"input_layernorm.weight", {128}},          {"mlp.down_proj.weight", {128, 320}},
      {"mlp.gate_proj.weight", {320, 128}},       {"mlp.up_proj.weight", {320, 128}},
      {"post_attention_layernorm.weight", {128}}, {"self_attn.k_norm.weight", {128}},
      {"self_attn.k_proj.weight", {256, 128}},    {"self_attn.o_proj.weight", {128, 512}},
      {"self_attn.q_norm.weight", {128}},         {"self_attn.q_proj.weight", {512, 128}},
      {"self_attn.v_proj.weight", {256, 128}},
  };
  EXPECT_EQ(layer, expected);
}

TEST(Qwen3, RefusesAttentionBias) {
  const auto config = ParseModelConfig(testing::WithKey(ConfigText(), "attention_bias", "true"));
  EXPECT_THAT(std::string(Message(config.status())), HasSubstr("attention_bias is true"));
}

}  // namespace
}  // namespace fathom
