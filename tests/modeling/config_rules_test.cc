// How an architecture reads keys that are present, missing, or changed by overrides: rotary
// embedding, windows, defaults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/status.h"
#include "modeling/config/model_config.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using testing::ConfigRefusal;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ParsedConfig;
using testing::ReadFile;
using testing::SourcePath;
using testing::TinyConfig;
using testing::WithKey;

// `layer_types` for `layers` layers.
std::string Types(int32_t layers, std::string_view type) {
  std::string list;
  for (int32_t i = 0; i < layers; ++i) list += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", type);
  return "[" + list + "]";
}

TEST(ModelConfig, UnknownKeysAreNamedAtOnce) {
  std::string json = TinyConfig();
  for (const char* key : {"clip_qkv", "logits_scaling", "embedding_multiplier"}) {
    json = WithKey(json, key, "8.0");
  }
  EXPECT_THAT(
      ConfigRefusal(json),
      AllOf(
          HasSubstr("clip_qkv = 8, logits_scaling = 8 and embedding_multiplier = 8 are not known"),
          HasSubstr(R"(--hf-overrides '{"clip_qkv": null, "logits_scaling": null, )"
                    R"("embedding_multiplier": null}')")));
}

// Its other keys mean nothing before the architecture is known.
TEST(ModelConfig, AnUnsupportedArchitectureIsNamedBeforeItsOtherKeys) {
  std::string json = WithKey(TinyConfig(), "architectures", R"(["FooForCausalLM"])");
  json = WithKey(json, "quantization_config", R"({"quant_method": "fp8"})");
  json = WithKey(json, "auto_map", R"({"AutoModel": "x.y"})");
  json = WithKey(json, "clip_qkv", "8.0");
  EXPECT_THAT(ConfigRefusal(json),
              AllOf(HasSubstr("FooForCausalLM"), HasSubstr("Qwen3ForCausalLM"),
                    Not(HasSubstr("fp8")), Not(HasSubstr("auto_map")), Not(HasSubstr("clip_qkv"))));
}

// The sliding window of a layer as the architecture reads it; a window as long as the context
// counts as none.
TEST(ModelConfig, SlidingWindows) {
  const auto with = [](std::string_view name,
                       std::initializer_list<std::pair<const char*, const char*>> keys) {
    std::string json = ReadFile(SourcePath("tests/data/configs") / (std::string(name) + ".json"));
    for (const char* key :
         {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}) {
      json = WithKey(json, key, "");
    }
    for (const auto& [key, value] : keys) json = WithKey(json, key, value);
    return json;
  };
  for (const char* name : {"r1-distill-qwen", "qwen3"}) {
    const ModelConfig plain = ParsedConfig(with(name, {}));
    const std::string context = std::to_string(plain.context);
    const std::string less = std::to_string(plain.context - 1);
    const std::string layers = std::to_string(plain.layers);
    const std::string last = std::to_string(plain.layers - 1);
    // Published forms in which no layer has a window.
    EXPECT_EQ(ParsedConfig(with(name, {{"sliding_window", "16"}})), plain);
    EXPECT_EQ(ParsedConfig(with(name, {{"use_sliding_window", "false"}, {"sliding_window", "16"}})),
              plain);
    EXPECT_EQ(ParsedConfig(with(name, {{"use_sliding_window", "true"},
                                       {"sliding_window", "16"},
                                       {"max_window_layers", layers.c_str()}})),
              plain);
    // The first layer with a window would be layer 28.
    EXPECT_EQ(ParsedConfig(with(name, {{"use_sliding_window", "true"}, {"sliding_window", "16"}})),
              plain);
    EXPECT_EQ(ParsedConfig(with(name, {{"use_sliding_window", "true"},
                                       {"sliding_window", "null"},
                                       {"max_window_layers", "0"}})),
              plain);
    // Windows as long as the context.
    EXPECT_EQ(ParsedConfig(with(name, {{"use_sliding_window", "true"},
                                       {"sliding_window", context.c_str()},
                                       {"max_window_layers", "0"}})),
              plain);
    EXPECT_THAT(ConfigRefusal(with(name, {{"use_sliding_window", "true"},
                                          {"sliding_window", less.c_str()},
                                          {"max_window_layers", last.c_str()}})),
                AllOf(HasSubstr(fmt::format("sliding_window = {} is shorter than "
                                            "max_position_embeddings = {} in 1 of the {} layers",
                                            less, context, layers)),
                      HasSubstr(fmt::format(R"('{{"max_position_embeddings": {}}}')", less))));
    EXPECT_THAT(ConfigRefusal(with(
                    name, {{"use_sliding_window", "false"},
                           {"sliding_window", "16"},
                           {"layer_types", Types(plain.layers, "sliding_attention").c_str()}})),
                HasSubstr("layer_types names sliding_attention"));
    EXPECT_THAT(ConfigRefusal(with(
                    name, {{"use_sliding_window", "true"},
                           {"sliding_window", "16"},
                           {"layer_types", Types(plain.layers, "sliding_attention").c_str()}})),
                HasSubstr("sliding_window = 16"));
    EXPECT_EQ(
        ParsedConfig(with(name, {{"use_sliding_window", "true"},
                                 {"sliding_window", "16"},
                                 {"max_window_layers", "0"},
                                 {"layer_types", Types(plain.layers, "full_attention").c_str()}})),
        plain);
  }
  const std::string llama = WithKey(TinyConfig(), "layer_types", Types(8, "sliding_attention"));
  EXPECT_THAT(ConfigRefusal(WithKey(llama, "sliding_window", "4095")),
              HasSubstr("sliding_window = 4095"));
  EXPECT_EQ(ParsedConfig(WithKey(llama, "sliding_window", "4096")), ParsedConfig(TinyConfig()));
}

// A missing key has the value of the architecture's class in transformers.
TEST(ModelConfig, MissingKeysHaveTheArchitecturesDefaults) {
  const auto without = [](std::string json) {
    for (const char* key :
         {"rms_norm_eps", "max_position_embeddings", "num_key_value_heads", "head_dim"}) {
      json = WithKey(json, key, "");
    }
    json = WithKey(json, "hidden_size", "4096");
    return WithKey(json, "num_attention_heads", "64");
  };
  const ModelConfig llama = ParsedConfig(without(TinyConfig()));
  EXPECT_EQ(llama.rms_eps, 1e-6);
  EXPECT_EQ(llama.context, 2048);
  EXPECT_EQ(llama.kv_heads, 64);
  EXPECT_EQ(llama.head_dim, 64);
  const std::string qwen2_json =
      without(ReadFile(SourcePath("tests/data/configs/r1-distill-qwen.json")));
  const ModelConfig qwen2 = ParsedConfig(qwen2_json);
  EXPECT_EQ(qwen2.rms_eps, 1e-6);
  EXPECT_EQ(qwen2.context, 32768);
  EXPECT_EQ(qwen2.kv_heads, 32);
  EXPECT_EQ(qwen2.head_dim, 64);
  EXPECT_EQ(ParsedConfig(WithKey(qwen2_json, "num_key_value_heads", "null")).kv_heads, 64);
  const ModelConfig qwen3 =
      ParsedConfig(without(ReadFile(SourcePath("tests/data/configs/qwen3.json"))));
  EXPECT_EQ(qwen3.context, 32768);
  EXPECT_EQ(qwen3.kv_heads, 32);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(ModelConfig, Overrides) {
  const testing::TempFolder folder;
  const std::string text = WithKey(TinyConfig(), "logits_scaling", "8.0");
  testing::WriteFile(folder / "config.json", text);
  const auto with = [&](std::string_view overrides) {
    return ReadModelConfig(folder.path(), overrides);
  };
  EXPECT_THAT(std::string(Message(with("").status())), HasSubstr("config.json: logits_scaling"));
  const auto removed = with(R"({"logits_scaling": null})");
  ASSERT_TRUE(removed.ok()) << ToString(removed.status());
  EXPECT_EQ(*removed, ParsedConfig(TinyConfig()));
  const auto yarn = with(R"({"logits_scaling": null, "max_position_embeddings": 16384,
      "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                       "original_max_position_embeddings": 4096}})");
  ASSERT_TRUE(yarn.ok()) << ToString(yarn.status());
  EXPECT_EQ(yarn->context, 16384);
  EXPECT_EQ(yarn->rope.scaling, RopeScaling::kYarn);
  const std::pair<const char*, const char*> kWrong[] = {
      {"[1]", "--hf-overrides is [1]; expected a JSON object"},
      {"{", "--hf-overrides: not valid JSON"},
      {R"({"a": 1, "a": 2})", "--hf-overrides: the key \"a\" appears twice"},
      {R"({"logits_scaling": null, "head_dim": 63})", "config.json: head_dim is 63"},
  };
  for (const auto& [overrides, says] : kWrong) {
    const auto refused = with(overrides);
    ASSERT_FALSE(refused.ok()) << overrides;
    EXPECT_THAT(std::string(Message(refused.status())), HasSubstr(says));
  }
}

// The factor on cos and sin: 0.1 ln(factor) + 1, which attention_factor replaces and attn_factor
// multiplies; mscale and mscale_all_dim as DeepSeek V2 has them.
TEST(ModelConfig, Yarn) {
  const auto rope = [](std::string_view keys) {
    return ParsedConfig(WithKey(TinyConfig(), "rope_scaling",
                                fmt::format(R"({{"type": "yarn", "factor": 4.0{}}})", keys)))
        .rope;
  };
  const double plain = 0.1 * std::log(4.0) + 1.0;
  const RopeConfig defaults = rope("");
  EXPECT_EQ(defaults, (RopeConfig{.scaling = RopeScaling::kYarn,
                                  .factor = 4,
                                  .original_context = 4096,
                                  .attention_factor = plain}));
  const RopeConfig all = rope(R"(, "beta_fast": 16, "beta_slow": 2.5, "truncate": false,
                                 "original_max_position_embeddings": 1024, "finetuned": true)");
  EXPECT_EQ(all, (RopeConfig{.scaling = RopeScaling::kYarn,
                             .factor = 4,
                             .original_context = 1024,
                             .beta_fast = 16,
                             .beta_slow = 2.5,
                             .truncate = false,
                             .attention_factor = plain}));
  const auto factor = [&](std::string_view keys) { return rope(keys).attention_factor; };
  EXPECT_EQ(factor(R"(, "attention_factor": 1.25)"), 1.25);
  EXPECT_EQ(factor(R"(, "attention_factor": 1.25, "mscale": 3)"), 1.25);
  // DeepSeek-R1-0528-Qwen3-8B: attn_factor makes the factor 1.
  EXPECT_NEAR(factor(R"(, "attn_factor": 0.8782488562869419)"), 1.0, 1e-15);
  EXPECT_EQ(factor(R"(, "mscale": 1.0, "mscale_all_dim": 1.0)"), 1.0);
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 0.707, "mscale_all_dim": 0.5)"),
                   (0.0707 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1));
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 0.5)"), 0.05 * std::log(4.0) + 1);
  // Without a factor, the factor is the quotient of the two contexts.
  const ModelConfig quotient =
      ParsedConfig(WithKey(TinyConfig(), "rope_scaling",
                           R"({"rope_type": "yarn", "original_max_position_embeddings": 1024})"));
  EXPECT_EQ(quotient.rope.factor, 4);
  EXPECT_EQ(quotient.rope.attention_factor, plain);
  // In the newer form, with theta.
  const ModelConfig newer =
      ParsedConfig(WithKey(WithKey(TinyConfig(), "rope_theta", ""), "rope_parameters",
                           R"({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000000.0})"));
  EXPECT_EQ(newer.rope.theta, 1e6);
  EXPECT_EQ(newer.rope.factor, 4);
}

// Dynamic scaling changes nothing up to max_position_embeddings, and no sequence is longer.
TEST(ModelConfig, DynamicIsPlain) {
  const ModelConfig plain = ParsedConfig(TinyConfig());
  for (const char* value :
       {R"({"type": "dynamic", "factor": 2.0})",
        R"({"rope_type": "dynamic", "factor": 4, "original_max_position_embeddings": 4096})"}) {
    EXPECT_EQ(ParsedConfig(WithKey(TinyConfig(), "rope_scaling", value)), plain);
  }
}

TEST(ModelConfig, BothFormsOfRotaryEmbeddingMayStandThereIfTheyAgree) {
  const std::string older =
      WithKey(TinyConfig(), "rope_scaling", R"({"type": "linear", "factor": 2})");
  const ModelConfig expected = ParsedConfig(older);
  for (const char* same : {R"({"rope_type": "linear", "factor": 2.0})",
                           R"({"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})"}) {
    EXPECT_EQ(ParsedConfig(WithKey(older, "rope_parameters", same)), expected);
  }
  EXPECT_THAT(
      ConfigRefusal(WithKey(older, "rope_parameters", R"({"rope_type": "linear", "factor": 3})")),
      HasSubstr("rope_parameters stands beside rope_scaling and says something else"));
}

}  // namespace
}  // namespace fathom
