#include "modeling/config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/generation_config.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using testing::BundledModel;
using testing::ConfigRefusal;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ParsedConfig;
using testing::ReadFile;
using testing::SourcePath;
using testing::TinyConfig;
using testing::WithKey;

int64_t Parameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& spec : ExpectedTensors(SpecOf(config))) {
    count += spec.elements();
  }
  return count;
}

TEST(ModelConfig, BundledModel) {
  const auto config = ReadModelConfig(BundledModel("fathom-tiny"));
  ASSERT_TRUE(config.ok()) << ToString(config.status());
  ModelConfig expected;
  expected.architecture = "LlamaForCausalLM";
  expected.layers = 8;
  expected.hidden = 256;
  expected.heads = 4;
  expected.kv_heads = 2;
  expected.head_dim = 64;
  expected.ffn = 704;
  expected.vocab = 4096;
  expected.context = 4096;
  expected.rms_eps = 1e-6;
  expected.stored_type = StoredType::kBf16;
  expected.bos_id = 0;
  expected.end_ids = {1};
  EXPECT_EQ(*config, expected);
  EXPECT_EQ(Parameters(*config), 7'999'744);  // As its model card says.
  const auto generation = ReadGenerationConfig(BundledModel("fathom-tiny"), config->vocab);
  ASSERT_TRUE(generation.ok()) << ToString(generation.status());
  EXPECT_EQ(generation->temperature, 0.7f);
  EXPECT_EQ(generation->top_p, 0.95f);
  EXPECT_EQ(generation->top_k, std::nullopt);
  EXPECT_THAT(EndIds(*config, *generation), ElementsAre(1));
}

TEST(ModelConfig, DraftModelHasTheParametersOfItsCard) {
  const auto config = ReadModelConfig(BundledModel("fathom-tiny-draft"));
  ASSERT_TRUE(config.ok()) << ToString(config.status());
  EXPECT_EQ(Parameters(*config), 1'417'856);
}

// Parameter counts as published with the models.
TEST(ModelConfig, PublishedShapes) {
  const std::pair<const char*, int64_t> kModels[] = {
      {"deepseek-llm-7b", 6'910'365'696},     {"deepseek-coder-6.7b", 6'740'512'768},
      {"llama-2-13b", 13'015'864'320},        {"deepseek-coder-33b", 33'342'991'360},
      {"deepseek-llm-67b", 67'425'001'472},   {"r1-distill-qwen-7b", 7'615'616'512},
      {"r1-distill-llama-8b", 8'030'261'248},
  };
  for (const auto& [name, parameters] : kModels) {
    const auto config =
        ReadModelConfig(SourcePath("models/shapes") / (std::string(name) + ".json"));
    ASSERT_TRUE(config.ok()) << ToString(config.status());
    EXPECT_EQ(Parameters(*config), parameters) << name;
  }
}

TEST(ModelConfig, Features) {
  const auto read = [](std::string_view name) {
    return ParsedConfig(ReadFile(SourcePath("tests/data/configs") / (std::string(name) + ".json")));
  };
  const ModelConfig linear = read("deepseek-coder");
  EXPECT_EQ(linear.rope, (RopeConfig{.theta = 1e5, .scaling = RopeScaling::kLinear, .factor = 4}));
  EXPECT_EQ(linear.heads / linear.kv_heads, 7);
  const ModelConfig llama3 = read("r1-distill-llama");
  EXPECT_EQ(llama3.rope, (RopeConfig{.theta = 5e5,
                                     .scaling = RopeScaling::kLlama3,
                                     .factor = 8,
                                     .low_freq_factor = 1,
                                     .high_freq_factor = 4,
                                     .original_context = 256}));
  EXPECT_FALSE(llama3.qkv_bias);
  const ModelConfig qwen2 = read("r1-distill-qwen");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.qk_norm);
  EXPECT_EQ(qwen2.head_dim, 64);  // hidden / heads.
  EXPECT_EQ(read("deepseek-llm").kv_heads, 4);
}

TEST(ModelConfig, NewerFormIsTheOlderForm) {
  for (const std::string_view name :
       {"deepseek-coder", "deepseek-llm", "r1-distill-llama", "r1-distill-qwen"}) {
    const std::string older =
        ReadFile(SourcePath("tests/data/configs") / (std::string(name) + ".json"));
    const ModelConfig expected = ParsedConfig(older);
    std::string parameters = fmt::format(R"("rope_theta": {})", expected.rope.theta);
    if (expected.rope.scaling == RopeScaling::kNone) parameters += R"(, "rope_type": "default")";
    if (expected.rope.scaling == RopeScaling::kLinear) {
      parameters += R"(, "rope_type": "linear", "factor": 4.0)";
    }
    if (expected.rope.scaling == RopeScaling::kLlama3) {
      parameters += R"(, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 256)";
    }
    std::string newer = WithKey(older, "rope_scaling", "");
    newer = WithKey(newer, "rope_theta", "");
    newer = WithKey(newer, "rope_parameters", "{" + parameters + "}");
    newer = WithKey(newer, "torch_dtype", "");
    newer = WithKey(newer, "dtype", "\"bfloat16\"");
    EXPECT_EQ(ParsedConfig(newer), expected) << name;
  }
}

TEST(ModelConfig, Defaults) {
  std::string json = TinyConfig();
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_theta", "hidden_act",
                          "attention_bias", "mlp_bias", "tie_word_embeddings", "torch_dtype",
                          "bos_token_id", "eos_token_id", "model_type", "pad_token_id"}) {
    json = WithKey(json, key, "");
  }
  const ModelConfig config = ParsedConfig(json);
  EXPECT_EQ(config.kv_heads, config.heads);
  EXPECT_EQ(config.head_dim, config.hidden / config.heads);
  EXPECT_EQ(config.rope, RopeConfig{});
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_EQ(config.stored_type, std::nullopt);
  EXPECT_EQ(config.bos_id, std::nullopt);
  EXPECT_THAT(config.end_ids, IsEmpty());
}

struct RefusedKey {
  const char* key;
  const char* value;  // Empty: the key is missing.
  const char* says;   // The message after the key.
};

TEST(ModelConfig, RefusesByName) {
  const RefusedKey kCases[] = {
      {"architectures", R"(["MixtralForCausalLM"])", "LlamaForCausalLM, Qwen2ForCausalLM"},
      {"architectures", R"(["LlamaForCausalLM", "Qwen2ForCausalLM"])", "expected a list of one"},
      {"architectures", "", "missing"},
      {"model_type", R"("mistral")", "\"llama\""},
      {"hidden_size", "", "missing"},
      {"hidden_size", "0", "1 to"},
      {"hidden_size", "256.0", "expected an integer"},
      {"hidden_size", "\"256\"", "expected an integer"},
      {"num_hidden_layers", "-1", "1 to"},
      {"num_hidden_layers", "1000000", "to 1024"},
      {"intermediate_size", "4294967296", "expected an integer"},
      {"num_attention_heads", "true", "expected an integer"},
      {"num_key_value_heads", "3", "does not divide num_attention_heads = 4"},
      {"head_dim", "63", "even"},
      {"rms_norm_eps", "0", "1e-12"},
      {"hidden_act", "\"gelu\"", "only \"silu\""},
      {"torch_dtype", "\"torch.int8\"", "bfloat16, float16 and float32"},
      {"attention_bias", "true", "without attention biases"},
      {"mlp_bias", "true", "without biases"},
      {"tie_word_embeddings", "1", "true or false"},
      {"torch_dtype", "\"float8_e4m3fn\"", "bfloat16, float16 and float32"},
      {"dtype", "\"float16\"", "torch_dtype \"bfloat16\""},
      {"eos_token_id", "4096", "0 to 4095"},
      {"eos_token_id", "[1, -1]", "0 to 4095"},
      {"eos_token_id", "\"</s>\"", "token ids"},
      {"bos_token_id", "[0, 1]", "expected one"},
      {"use_sliding_window", "1", "true or false"},
      {"layer_types", R"(["full_attention"])", "each of the 8 layers"},
      {"is_decoder", "true", "only false is supported"},
      {"chunk_size_feed_forward", "2", "only 0 is supported"},
      {"pruned_heads", R"({"0": [1]})", "only an empty one is supported"},
      {"temperature", "0.6", "only 1 is supported"},
      {"quantization_config", R"({"quant_method": "fp8"})", "quantized weights"},
      {"auto_map", R"({"AutoModel": "x.y"})", "never run"},
      {"partial_rotary_factor", "0.5", "only 1 is supported"},
      {"rope_interleaved", "true", "only false is supported"},
      {"rope_theta", "0", "from 1"},
      {"rope_scaling", R"({"type": "ntk-aware", "factor": 4.0})", "default, linear, dynamic, yarn"},
      {"rope_scaling", R"({"rope_type": "longrope", "factor": 4.0})", "\"longrope\""},
      {"rope_scaling", R"({"type": "su", "short_factor": [1]})", "length of a sequence"},
      {"rope_scaling",
       R"({"type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 64})",
       "set max_position_embeddings to 64"},
      {"rope_scaling", R"({"type": "dynamic"})", "rope_scaling.factor is missing"},
      {"rope_scaling", R"({"type": "yarn", "original_max_position_embeddings": 8192})",
       "rope_scaling.factor is missing"},
      {"rope_scaling", R"({"type": "yarn", "factor": 0.5})", "factor is 0.5"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4, "attn_factor": 1, "attention_factor": 1})",
       "keep one of them"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2})",
       "beta_fast = 1 is below beta_slow = 2"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4, "beta_fast": 0})", "beta_fast is 0"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4, "truncate": 1})", "true or false"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4, "long_factor": [1]})", "long_factor"},
      {"rope_scaling", R"({"type": "linear"})", "rope_scaling.factor is missing"},
      {"rope_scaling", R"({"type": "linear", "factor": 0.5})", "factor is 0.5"},
      {"rope_scaling", R"({"type": "linear", "factor": 2, "beta_fast": 3})", "beta_fast"},
      {"rope_scaling", R"({"type": "linear", "rope_type": "llama3", "factor": 2})", "keep one"},
      {"rope_scaling", "[1]", "expected an object"},
      {"rope_scaling",
       R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
           "original_max_position_embeddings": 256})",
       "not above low_freq_factor"},
      {"rope_parameters", R"({"rope_theta": 5e5, "rope_type": "default"})", "differ"},
      {"rope_parameters", R"({"full_attention": {}})", "full_attention"},
      {"logits_scaling", "8.0", "not known here"},
      {"attention_multiplier", "0.5", "may change the result"},
  };
  for (const RefusedKey& refused : kCases) {
    const std::string message = ConfigRefusal(WithKey(TinyConfig(), refused.key, refused.value));
    EXPECT_THAT(message, AllOf(HasSubstr(refused.key), HasSubstr(refused.says)));
  }
}

TEST(ModelConfig, HarmlessKeysAreAccepted) {
  const ModelConfig expected = ParsedConfig(TinyConfig());
  const std::pair<const char*, const char*> kHarmless[] = {
      {"use_cache", "false"},
      {"pretraining_tp", "2"},
      {"transformers_version", "\"9\""},
      {"sliding_window", "null"},
      {"anything", "null"},
      {"partial_rotary_factor", "1.0"},
      {"quantization_config", "null"},
      {"max_window_layers", "28"},
      {"initializer_range", "0.5"},
      {"use_sliding_window", "false"},
      {"sliding_window", "2048"},  // Llama has no windows, so these keys have no effect.
      {"use_sliding_window", "true"},
      {"max_sequence_length", "2048"},
      {"is_llama_config", "true"},
      {"is_decoder", "false"},
      {"pruned_heads", "{}"},
      {"chunk_size_feed_forward", "0"},
      {"tie_encoder_decoder", "false"},
      {"output_scores", "false"},
      {"model_max_length", "4096"},
      {"neftune_noise_alpha", "5"},
      {"embd_pdrop", "0.0"},
      {"temperature", "1.0"},
      {"top_k", "50"},
      {"bad_words_ids", "[]"},
      {"prefix", "\"\""},
      {"hidden_act", "\"swish\""},
      {"torch_dtype", "\"torch.bfloat16\""},
      {"rope_scaling", R"({"type": "default", "factor": 1.0})"},
      {"rope_scaling", R"({"rope_type": "default"})"},
      {"rope_parameters", R"({"rope_type": "default", "rope_theta": 10000.0})"},
      {"dtype", "\"bfloat16\""},
      {"rope_scaling", "null"},
  };
  for (const auto& [key, value] : kHarmless) {
    EXPECT_EQ(ParsedConfig(WithKey(TinyConfig(), key, value)), expected) << key;
  }
}

TEST(ModelConfig, RefusesWhatIsNotPlainJson) {
  EXPECT_THAT(ConfigRefusal(""), HasSubstr("not valid JSON at byte 1"));
  EXPECT_THAT(ConfigRefusal("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(ConfigRefusal(R"({"a": 1, "a": 2})"), HasSubstr("\"a\" appears twice"));
  EXPECT_THAT(ConfigRefusal(R"({"a": {"b": 1, "b": 1}})"), HasSubstr("\"b\" appears twice"));
  EXPECT_THAT(ConfigRefusal(R"({"a": 1} x)"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ConfigRefusal("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ConfigRefusal(R"({"a": 1e999})"), HasSubstr("near \"1e999"));
  EXPECT_THAT(ConfigRefusal(R"({"a": 18446744073709551615})"), HasSubstr("too large"));
  EXPECT_THAT(ConfigRefusal(R"({"a": )" + std::string(100'000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(ConfigRefusal(std::string(2 << 20, ' ')), HasSubstr("the limit is 1048576"));
  std::string many = R"({"a": [0)";
  for (int i = 0; i < 100'000; ++i) many += ",0";
  EXPECT_THAT(ConfigRefusal(many + "]}"), HasSubstr("more than 100000 values"));
  const std::string json = TinyConfig();
  for (size_t bytes = 0; bytes < json.find_last_of('}'); ++bytes)
    ConfigRefusal(json.substr(0, bytes));
}

TEST(ModelConfig, SeveralEndIds) {
  const ModelConfig config = ParsedConfig(WithKey(TinyConfig(), "eos_token_id", "[1, 5, 1]"));
  EXPECT_THAT(config.end_ids, ElementsAre(1, 5));
  EXPECT_THAT(EndIds(config, GenerationConfig{}), ElementsAre(1, 5));
  const auto generation = ParseGenerationConfig(R"({"eos_token_id": [9, 7, 9]})", 16);
  ASSERT_TRUE(generation.ok());
  EXPECT_THAT(EndIds(config, *generation), ElementsAre(7, 9));
}

// Router and workers read it with the same function, so neither starts.
TEST(ModelConfig, MoreEndIdsThanAnEngineHoldsAreRefused) {
  const std::string json = WithKey(TinyConfig(), "vocab_size", "100");
  const auto with_ids = [&](int count) {
    std::string ids = "[0";
    for (int i = 1; i < count; ++i) ids += "," + std::to_string(i);
    return WithKey(json, "eos_token_id", ids + "]");
  };
  EXPECT_EQ(ParsedConfig(with_ids(64)).end_ids.size(), 64u);
  EXPECT_THAT(ConfigRefusal(with_ids(65)),
              AllOf(HasSubstr("eos_token_id"), HasSubstr("has 65 ids; at most 64 are supported")));
}

TEST(ModelConfig, MessagesNameTheFile) {
  const testing::TempFolder folder;
  const auto missing = ReadModelConfig(folder.path());
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(missing.status())), HasSubstr("config.json"));
  testing::WriteFile(folder / "config.json", "{");
  const auto broken = ReadModelConfig(folder.path());
  EXPECT_THAT(std::string(Message(broken.status())), HasSubstr("config.json: not valid JSON"));
}

TEST(TensorParallel, NamesTheNumbersThatWouldDo) {
  const ModelConfig tiny = ParsedConfig(TinyConfig());
  for (const int32_t tp : {1, 2, 4}) EXPECT_TRUE(CheckTensorParallel(SpecOf(tiny), tp).ok()) << tp;
  for (const int32_t tp : {0, -1, 3, 8, 704}) {
    const absl::Status status = CheckTensorParallel(SpecOf(tiny), tp);
    ASSERT_FALSE(status.ok()) << tp;
    EXPECT_THAT(std::string(Message(status)),
                AllOf(HasSubstr(fmt::format("size {} ", tp)), HasSubstr("use one of 1, 2, 4")));
  }
}

// The vocabulary need not be divisible, but each rank needs a row of it.
TEST(TensorParallel, Vocabularies) {
  ModelConfig config = ParsedConfig(TinyConfig());
  for (const int32_t vocab : {32001, 151669, 513, 4095, 10}) {
    config.vocab = vocab;
    for (const int32_t tp : {1, 2, 4}) {
      ASSERT_TRUE(CheckTensorParallel(SpecOf(config), tp).ok()) << vocab << " of " << tp;
      const Parameter head = ExpectedTensors(SpecOf(config)).back();
      ASSERT_EQ(head.name, "lm_head.weight");
      int64_t next = 0;
      for (int32_t rank = 0; rank < tp; ++rank) {
        const TensorSlice slice = SliceOf(head, tp, rank);
        EXPECT_EQ(slice.row_begin, next);
        EXPECT_GT(slice.rows(), 0);
        next = slice.row_end;
      }
      EXPECT_EQ(next, vocab);
    }
  }
  config.vocab = 5;  // 2, 2, 1 and 0 rows.
  EXPECT_TRUE(CheckTensorParallel(SpecOf(config), 2).ok());
  EXPECT_FALSE(CheckTensorParallel(SpecOf(config), 4).ok());
}

// Each element is held by the same number of ranks: one; all, for whole tensors; or the ranks that
// share a kv head. And a rank has the kv head of each of its query heads.
TEST(TensorParallel, SlicesCoverEachTensor) {
  ModelConfig config = ParsedConfig(TinyConfig());
  config.layers = 1;
  config.heads = 16;
  config.ffn = 64;
  config.vocab = 61;  // The last rank has the rest.
  config.hidden = 8;
  config.head_dim = 2;
  config.qkv_bias = config.qk_norm = true;
  for (config.kv_heads = 1; config.kv_heads <= 16; config.kv_heads *= 2) {
    for (int32_t tp = 1; tp <= 16; tp *= 2) {
      for (const Parameter& spec : ExpectedTensors(SpecOf(config))) {
        const TensorSlice whole = WholeOf(spec);
        std::vector<int> holders(static_cast<size_t>(whole.rows() * whole.cols()));
        for (int32_t rank = 0; rank < tp; ++rank) {
          const TensorSlice slice = SliceOf(spec, tp, rank);
          for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
            for (int64_t col = slice.col_begin; col < slice.col_end; ++col) {
              ++holders.at(static_cast<size_t>(row * whole.cols() + col));
            }
          }
        }
        const int expected = spec.split == Split::kWhole    ? tp
                             : spec.split == Split::kKvRows ? std::max(1, tp / config.kv_heads)
                                                            : 1;
        EXPECT_THAT(std::set<int>(holders.begin(), holders.end()), ElementsAre(expected))
            << spec.name << " tp " << tp << " kv " << config.kv_heads;
      }
    }
  }
}

TEST(TensorParallel, QueryHeadsMeetTheirKvHead) {
  ModelConfig config = ParsedConfig(TinyConfig());
  config.heads = 16;
  config.ffn = config.vocab = 64;
  const Parameter k{.name = "k", .shape = {0, 8}, .split = Split::kKvRows};
  const Parameter q{.name = "q", .shape = {0, 8}, .split = Split::kRows};
  for (config.kv_heads = 1; config.kv_heads <= 16; config.kv_heads *= 2) {
    for (int32_t tp = 1; tp <= 16; tp *= 2) {
      Parameter heads = q, kv_heads = k;
      heads.shape[0] = config.heads;  // One row a head.
      kv_heads.shape[0] = kv_heads.kv_heads = config.kv_heads;
      for (int32_t rank = 0; rank < tp; ++rank) {
        const TensorSlice queries = SliceOf(heads, tp, rank);
        const TensorSlice keys = SliceOf(kv_heads, tp, rank);
        const int64_t group = config.heads / config.kv_heads;
        EXPECT_LE(keys.row_begin, queries.row_begin / group);
        EXPECT_GE(keys.row_end, (queries.row_end - 1) / group + 1);
      }
    }
  }
}

}  // namespace
}  // namespace fathom
