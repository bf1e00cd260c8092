#include "worker/speculative_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

namespace fathom::worker {
namespace {

using ::testing::HasSubstr;

TEST(SpeculativeConfig, JsonAndFlagsSayTheSame) {
  const SpeculativeConfig ngram{SpeculativeMethod::kNgram, 5, 2, 3, ""};
  const char* const json = R"({"method": "ngram", "num_speculative_tokens": 5,
                              "prompt_lookup_min": 2, "prompt_lookup_max": 3})";
  EXPECT_EQ(*ReadSpeculativeConfig({.config = json}), ngram);
  EXPECT_EQ(*ReadSpeculativeConfig(
                {.config = R"({"prompt_lookup_max": 3})", .method = "ngram", .tokens = 5}),
            ngram);
  const SpeculativeConfig draft{SpeculativeMethod::kDraft, 4, 0, 0, "folder"};
  EXPECT_EQ(*ReadSpeculativeConfig({.model = "folder"}), draft);
  EXPECT_EQ(*ReadSpeculativeConfig({.config = R"({"method": "draft_model", "model": "folder"})"}),
            draft);
  EXPECT_EQ(*ReadSpeculativeConfig({.config = R"({"model": "folder"})", .method = "draft"}), draft);
  EXPECT_EQ(*ReadSpeculativeConfig({}), SpeculativeConfig());
  EXPECT_EQ(*ReadSpeculativeConfig({.method = "ngram"}),
            (SpeculativeConfig{SpeculativeMethod::kNgram, 4, 2, 4, ""}));
  EXPECT_EQ(ReadSpeculativeConfig({.config = R"({"method": "ngram", "prompt_lookup_max": 1})"})
                ->lookup_min,
            1);
}

TEST(SpeculativeConfig, ErrorsNameTheValueAndTheWayOut) {
  const std::vector<std::tuple<SpeculativeFlags, const char*>> wrong = {
      {{.config = "ngram"}, "--speculative-config"},
      {{.config = "[1]"}, "no JSON object"},
      {{.config = R"({"method": 3})"}, "method is 3, not a string"},
      {{.config = R"({"method": "ngram", "num_speculative_tokens": 2.5})"}, "not an integer"},
      {{.config = R"({"method": "ngram", "num_speculative_tokens": 17})"}, "17 is not within 1"},
      {{.config = R"({"method": "ngram", "num_speculative_tokens": 0})"}, "0 is not within 1"},
      {{.config = R"({"method": "eagle"})"}, "'eagle': there are ngram and draft"},
      {{.config = R"({"method": "ngram", "speed": 1})"}, "the key speed is not known"},
      {{.config = R"({"method": "ngram"})", .method = "ngram"}, "give one of them"},
      {{.config = R"({"num_speculative_tokens": 3, "method": "ngram"})", .tokens = 3},
       "--num-speculative-tokens"},
      {{.config = R"({"method": "ngram", "prompt_lookup_min": 5})"}, "prompt_lookup_min 5"},
      {{.config = "{}"}, "without a method"},
      {{.tokens = 3}, "without a method"},
      {{.method = "draft"}, "needs --speculative-model"},
      {{.method = "ngram", .model = "folder"}, "has no model"},
      {{.config = R"({"model": "folder", "prompt_lookup_min": 2})"}, "belong to the method ngram"},
  };
  for (const auto& [flags, text] : wrong) {
    const auto config = ReadSpeculativeConfig(flags);
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
    EXPECT_THAT(std::string(Message(config.status())), HasSubstr(text));
  }
}

TEST(SpeculativeConfig, ADescriptionTellsProposersApart) {
  const SpeculativeConfig ngram{SpeculativeMethod::kNgram, 5, 2, 3, ""};
  const SpeculativeConfig draft{SpeculativeMethod::kDraft, 5, 0, 0, "folder"};
  EXPECT_EQ(Describe({}), "");
  EXPECT_EQ(Describe(ngram), "ngram of 2 to 3 tokens, 5 drafts");
  EXPECT_NE(Describe(draft, "a"), Describe(draft, "b"));
}

}  // namespace
}  // namespace fathom::worker
