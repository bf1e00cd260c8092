// bad_words and allowed_token_ids: which tokens they forbid, and what is refused.
#include "router/api/forbidden_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/reason.h"
#include "common/request_limits.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelFacts FactsOfVocab(int32_t vocab) {
  ModelFacts facts;
  facts.name = "tiny";
  facts.vocab = vocab;
  facts.context_tokens = 64;
  facts.pool_tokens = 64;
  facts.has_tokenizer = true;
  return facts;
}

ErrorDetail DetailOfStatus(const absl::Status& status) {
  return DetailOf(status).value_or(ErrorDetail{});
}

TEST(ForbiddenTokens, AWordIsForbiddenWithAndWithoutASpace) {
  const Tokenizer& tokenizer = TinyTokenizer();
  int both = 0;
  for (const char* word : {"the", " of", "a", "Paris", "is", ","}) {
    const std::string bare = word[0] == ' ' ? word + 1 : word;
    PublicSampling sampling;
    sampling.bad_words = {word};
    std::vector<TokenId> want;
    for (const std::string& text : {bare, " " + bare}) {
      if (Ids(text).size() == 1) want.push_back(Ids(text)[0]);
    }
    std::ranges::sort(want);
    const absl::Status status =
        ResolveForbidden(&tokenizer, FactsOfVocab(tokenizer.vocab_size()), &sampling);
    ASSERT_EQ(status.ok(), Ids(bare).size() == 1) << word << ": " << ToString(status);
    if (!status.ok()) continue;
    EXPECT_EQ(sampling.forbidden_ids, want) << word;
    if (want.size() == 2) ++both;
  }
  EXPECT_GT(both, 0);
}

// What is allowed and what is forbidden are the whole vocabulary.
TEST(ForbiddenTokens, AllOthersThanTheAllowedOnesAreForbidden) {
  PublicSampling sampling;
  sampling.allowed_token_ids = {9, 2, 2, 5};
  ASSERT_TRUE(ResolveForbidden(nullptr, FactsOfVocab(11), &sampling).ok());
  EXPECT_THAT(sampling.forbidden_ids, ElementsAre(0, 1, 3, 4, 6, 7, 8, 10));
  const SamplingParams resolved = ResolveSampling(sampling, {});
  ASSERT_EQ(resolved.logit_bias.size(), 8u);
  EXPECT_EQ(resolved.logit_bias[2], std::pair(TokenId{3}, kSuppressedBias));
}

TEST(ForbiddenTokens, ABiasDoesNotAllowAForbiddenToken) {
  PublicSampling sampling;
  sampling.logit_bias = {{3, 100.0f}, {4, 1.0f}};
  sampling.forbidden_ids = {3, 7};
  RequestDefaults defaults;
  defaults.suppressed_ids = {7, 8};
  EXPECT_THAT(ResolveSampling(sampling, defaults).logit_bias,
              ElementsAre(std::pair(3, kSuppressedBias), std::pair(4, 1.0f),
                          std::pair(7, kSuppressedBias), std::pair(8, kSuppressedBias)));
}

TEST(ForbiddenTokens, RefusesByNameWithTheLimit) {
  const ModelFacts facts = FactsOfVocab(5000);
  PublicSampling few;
  few.allowed_token_ids = {1};
  absl::Status status = ResolveForbidden(&TinyTokenizer(), facts, &few);
  EXPECT_EQ(DetailOfStatus(status).field, "sampling.allowed_token_ids");
  EXPECT_EQ(DetailOfStatus(status).reason, "NOT_IMPLEMENTED");
  EXPECT_THAT(Message(status), HasSubstr("4999 of the 5000"));
  EXPECT_THAT(Message(status), HasSubstr(fmt::format("{}", kLogitBiasMax)));
  PublicSampling outside;
  outside.allowed_token_ids = {1, 5000};
  status = ResolveForbidden(&TinyTokenizer(), facts, &outside);
  EXPECT_EQ(DetailOfStatus(status).field, "sampling.allowed_token_ids[1]");
  PublicSampling word;
  word.bad_words = {"the", "incomprehensibilities"};
  status = ResolveForbidden(&TinyTokenizer(), facts, &word);
  EXPECT_EQ(DetailOfStatus(status).field, "sampling.bad_words[1]");
  EXPECT_THAT(Message(status), HasSubstr("words of one token"));
  word.bad_words = {" "};
  EXPECT_EQ(DetailOfStatus(ResolveForbidden(&TinyTokenizer(), facts, &word)).reason,
            "OUT_OF_RANGE");
  word.bad_words = {"the"};
  EXPECT_EQ(DetailOfStatus(ResolveForbidden(nullptr, facts, &word)).reason, "NO_TOKENIZER");
}

// The forbidden tokens are biases, of which a sequence has a limited number.
TEST(ForbiddenTokens, CountWithTheOtherBiases) {
  PublicRequest request;
  for (TokenId id = 1; id <= kLogitBiasMax; ++id)
    request.sampling.logit_bias.emplace_back(id, 1.0f);
  request.sampling.bad_words = {"x"};
  request.sampling.forbidden_ids = {0};
  const auto refused = Admit(request, {1}, FactsOfVocab(5000), {}).status();
  EXPECT_EQ(DetailOfStatus(refused).field, "sampling.bad_words");
  EXPECT_THAT(Message(refused), HasSubstr("1025 biases"));
}

}  // namespace
}  // namespace fathom::router
