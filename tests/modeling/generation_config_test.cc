// generation_config.json: every key that transformers writes is used, harmless or refused by name,
// and --override-generation-config changes each of them.
#include "modeling/config/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/status.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int32_t kVocab = 16;

GenerationConfig Parsed(std::string_view json, std::string_view overrides = {}) {
  const auto config = ParseGenerationConfig(json, kVocab, overrides);
  EXPECT_TRUE(config.ok()) << json << ": " << ToString(config.status());
  return config.ok() ? *config : GenerationConfig{};
}

TEST(GenerationConfig, DoSampleDecidesTheTemperatureOnlyWhenItIsFalse) {
  EXPECT_EQ(Parsed("{}"), GenerationConfig{});
  EXPECT_EQ(Parsed(R"({"temperature": 0.6})").temperature, 0.6f);
  EXPECT_EQ(Parsed(R"({"temperature": 0.6, "do_sample": true})").temperature, 0.6f);
  EXPECT_EQ(Parsed(R"({"do_sample": true})").temperature, std::nullopt);
  EXPECT_EQ(Parsed(R"({"do_sample": null})").temperature, std::nullopt);
  EXPECT_EQ(Parsed(R"({"do_sample": false})").temperature, 0.0f);
  EXPECT_THAT(Parsed(R"({"do_sample": false})").notes, IsEmpty());
  const GenerationConfig greedy =
      Parsed(R"({"do_sample": false, "temperature": 0.6, "top_p": 0.9})");
  EXPECT_EQ(greedy.temperature, 0.0f);
  EXPECT_EQ(greedy.top_p, 0.9f);  // For requests that give a temperature.
  EXPECT_THAT(greedy.notes, ElementsAre(HasSubstr("temperature 0.6 is not used")));
}

// Values that mean "off" in other programs are accepted at the start.
TEST(GenerationConfig, ValuesThatKeepEverythingAreOff) {
  for (const char* top_k : {"0", "-1", "16", "17", "5000000000", "-5000000000", "50.0"}) {
    EXPECT_EQ(Parsed(fmt::format(R"({{"top_k": {}}})", top_k)).top_k, 0) << top_k;
  }
  EXPECT_EQ(Parsed(R"({"top_k": 15})").top_k, 15);
  EXPECT_EQ(Parsed(R"({"top_k": 3.0})").top_k, 3);
  EXPECT_THAT(Parsed(R"({"top_k": 50})").notes, ElementsAre(HasSubstr("top_k 50")));
  EXPECT_EQ(Parsed(R"({"top_p": 2})").top_p, 1.0f);
  EXPECT_EQ(Parsed(R"({"top_p": 1})").top_p, 1.0f);
  EXPECT_EQ(Parsed(R"({"top_p": 0})").top_p, std::numeric_limits<float>::min());
  EXPECT_EQ(Parsed(R"({"top_p": 1e-300})").top_p, std::numeric_limits<float>::min());
  EXPECT_EQ(Parsed(R"({"typical_p": 0.3})").typical_p, 0.3f);
  EXPECT_EQ(Parsed(R"({"typical_p": 1.5})").typical_p, 1.0f);
  EXPECT_THAT(Parsed(R"({"typical_p": 1.5})").notes, ElementsAre(HasSubstr("typical_p 1.5")));
  // The router applies its limits later.
  EXPECT_EQ(Parsed(R"({"temperature": 2.5})").temperature, 2.5f);
  EXPECT_EQ(Parsed(R"({"repetition_penalty": 7})").repetition_penalty, 7.0f);
  EXPECT_EQ(Parsed(R"({"presence_penalty": 1.5})").presence_penalty, 1.5f);
}

TEST(GenerationConfig, StopsAndSuppressedTokens) {
  const GenerationConfig config = Parsed(R"({"eos_token_id": [9, 3, 9], "min_new_tokens": 4,
      "stop_strings": ["</end>", "\n\n"], "suppress_tokens": [7, 2],
      "bad_words_ids": [[5], [2]]})");
  EXPECT_THAT(config.end_ids, ElementsAre(3, 9));
  EXPECT_EQ(config.min_new_tokens, 4);
  EXPECT_THAT(config.stop_strings, ElementsAre("</end>", "\n\n"));
  EXPECT_THAT(config.suppressed_ids, ElementsAre(2, 5, 7));
  EXPECT_THAT(Parsed(R"({"stop_strings": "x"})").stop_strings, ElementsAre("x"));
  EXPECT_THAT(Parsed(R"({"suppress_tokens": [], "bad_words_ids": []})").suppressed_ids, IsEmpty());
}

TEST(GenerationConfig, ThinkingBudgets) {
  EXPECT_EQ(Parsed("{}").thinking_budgets, ThinkingBudgets{});
  EXPECT_EQ(Parsed(R"({"thinking_token_budgets": {"low": 5, "medium": null, "high": 0}})")
                .thinking_budgets,
            (ThinkingBudgets{.low = 5, .medium = std::nullopt, .high = 0}));
  EXPECT_EQ(Parsed(R"({"thinking_token_budgets": {"high": 9}})").thinking_budgets,
            (ThinkingBudgets{.high = 9}));
}

TEST(GenerationConfig, HarmlessKeysChangeNothing) {
  EXPECT_EQ(Parsed(R"({"_from_model_config": true, "transformers_version": "4.51.0",
      "bos_token_id": [1, 99], "pad_token_id": -1, "max_length": 20, "max_new_tokens": 4096,
      "num_beams": 1, "num_beam_groups": 1, "length_penalty": 2.0, "early_stopping": true,
      "num_return_sequences": 3, "epsilon_cutoff": 0, "eta_cutoff": 0.0,
      "no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0, "penalty_alpha": 0,
      "guidance_scale": 1, "force_words_ids": [], "forced_eos_token_id": null, "use_cache": false,
      "renormalize_logits": true, "is_assistant": false, "cache_implementation": "hybrid"})"),
            GenerationConfig{});
}

// Each error has the key, the value and the way out; with the key overridden the model starts.
TEST(GenerationConfig, RefusesByNameWithTheWayOut) {
  const std::pair<const char*, const char*> kCases[] = {
      {"eos_token_id", "16"},
      {"eos_token_id", "-1"},
      {"temperature", "-1"},
      {"temperature", "\"hot\""},
      {"do_sample", "1"},
      {"top_p", "-0.5"},
      {"top_k", "1.5"},
      {"top_k", "\"all\""},
      {"min_p", "1.5"},
      {"min_p", "-1"},
      {"repetition_penalty", "0"},
      {"repetition_penalty", "-1"},
      {"min_new_tokens", "-1"},
      {"thinking_token_budgets", "5"},
      {"thinking_token_budgets", R"({"low": -1})"},
      {"thinking_token_budgets", R"({"huge": 1})"},
      {"min_length", "10"},
      {"stop_strings", "[1]"},
      {"stop_strings", R"([""])"},
      {"suppress_tokens", "[16]"},
      {"suppress_tokens", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]"},
      {"begin_suppress_tokens", "[1]"},
      {"bad_words_ids", "[[1, 2]]"},
      {"bad_words_ids", "[[16]]"},
      {"bad_words_ids", "[3]"},
      {"force_words_ids", "[[1]]"},
      {"forced_bos_token_id", "1"},
      {"forced_eos_token_id", "1"},
      {"sequence_bias", "[[[1], 2.0]]"},
      {"exponential_decay_length_penalty", "[5, 1.1]"},
      {"watermarking_config", R"({"bias": 2.0})"},
      {"dola_layers", "\"high\""},
      {"num_beams", "4"},
      {"num_beam_groups", "2"},
      {"penalty_alpha", "0.6"},
      {"typical_p", "0"},
      {"epsilon_cutoff", "0.0003"},
      {"eta_cutoff", "0.0003"},
      {"no_repeat_ngram_size", "3"},
      {"encoder_no_repeat_ngram_size", "3"},
      {"encoder_repetition_penalty", "1.5"},
      {"guidance_scale", "1.5"},
      {"token_healing", "true"},
      {"a_key_of_the_future", "1"},
  };
  for (const auto& [key, value] : kCases) {
    const std::string json = fmt::format(R"({{"{}": {}, "presence_penalty": 1}})", key, value);
    const auto config = ParseGenerationConfig(json, kVocab);
    ASSERT_FALSE(config.ok()) << json;
    EXPECT_THAT(std::string(Message(config.status())),
                AllOf(HasSubstr(key), HasSubstr("--override-generation-config"),
                      HasSubstr("null takes it out")));
    EXPECT_EQ(Parsed(json, fmt::format(R"({{"{}": null}})", key)).presence_penalty, 1.0f) << json;
  }
}

TEST(GenerationConfig, OverridesReplaceAndAddKeys) {
  const GenerationConfig config = Parsed(R"({"temperature": 0.6, "top_p": 0.9, "num_beams": 4})",
                                         R"({"temperature": 0.2, "num_beams": null, "top_k": 7})");
  EXPECT_EQ(config.temperature, 0.2f);
  EXPECT_EQ(config.top_p, 0.9f);
  EXPECT_EQ(config.top_k, 7);
  for (const char* bad : {"{", "[1]", "3", R"({"top_k": 1, "top_k": 2})"}) {
    const auto refused = ParseGenerationConfig("{}", kVocab, bad);
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("--override-generation-config"));
  }
}

TEST(GenerationConfig, MessagesNameTheFileOrTheFlag) {
  const testing::TempFolder folder;
  EXPECT_EQ(*ReadGenerationConfig(folder.path(), kVocab), GenerationConfig{});
  EXPECT_EQ(ReadGenerationConfig(folder.path(), kVocab, R"({"top_k": 3})")->top_k, 3);
  EXPECT_THAT(std::string(Message(
                  ReadGenerationConfig(folder.path(), kVocab, R"({"num_beams": 3})").status())),
              HasSubstr("--override-generation-config: num_beams is 3"));
  testing::WriteFile(folder / "generation_config.json", R"({"top_p": -2})");
  EXPECT_THAT(std::string(Message(ReadGenerationConfig(folder.path(), kVocab).status())),
              HasSubstr((folder / "generation_config.json").string() + ": top_p is -2"));
}

}  // namespace
}  // namespace fathom
