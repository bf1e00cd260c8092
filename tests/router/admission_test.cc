// Admission: every row of the table of limits, inside and outside its range; other rules by
// examples.
#include "router/api/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <sstream>

#include "router/api/field_limits.h"

namespace fathom::router {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed == nullptr ? 13 : std::strtoull(seed, nullptr, 10);
}

ModelFacts Facts() {
  ModelFacts facts;
  facts.name = "tiny";
  facts.vocab = 4096;
  facts.context_tokens = 1000;
  facts.pool_tokens = 100'000;
  facts.end_token_ids = {1};
  facts.defaults.temperature = 0.7f;
  facts.defaults.top_p = 0.95f;
  facts.has_tokenizer = true;
  return facts;
}

absl::StatusOr<AdmittedRequest> AdmitIds(const PublicRequest& request,
                                         std::vector<TokenId> ids = {0, 5, 7},
                                         const ModelFacts& facts = Facts()) {
  return Admit(request, std::move(ids), facts, {{"tenant", "req"}, 42});
}

int32_t ToInt(double value) {
  if (!(value > -2e9)) return INT32_MIN;
  return value < 2e9 ? static_cast<int32_t>(value) : INT32_MAX;
}

struct Case {
  PublicRequest request;
  std::vector<TokenId> ids = {0, 5, 7};
};

// How the value of a row gets into a request. `integer`: the field cannot hold fractions or NaN.
struct Setter {
  bool integer = true;
  std::function<void(double, Case*)> set;
};

std::map<Field, Setter> WithSampling(std::map<Field, Setter> setters) {
  ForEachSamplingField([&](const SamplingField& row, auto value, auto option) {
    if constexpr (std::is_integral_v<std::decay_t<decltype(SamplingValues{}.*value)>>) {
      setters[FieldOf(row)] = {
          true, [option](double v, Case* c) { c->request.sampling.*option = ToInt(v); }};
    } else {
      setters[FieldOf(row)] = {false,
                               [option](double v, Case* c) { c->request.sampling.*option = v; }};
    }
  });
  return setters;
}

const std::map<Field, Setter>& Setters() {
  static const std::map<Field, Setter> setters = WithSampling({
      {Field::kLogitBiasId,
       {true,
        [](double v, Case* c) {
          c->request.sampling.logit_bias = {{ToInt(v), 1.0f}};
        }}},
      {Field::kLogitBiasValue,
       {false,
        [](double v, Case* c) {
          c->request.sampling.logit_bias = {{3, static_cast<float>(v)}};
        }}},
      {Field::kLogitBiasCount,
       {true,
        [](double v, Case* c) {
          for (int i = 0; i < std::min(v, 5000.0); ++i)
            c->request.sampling.logit_bias.push_back({i % 4096, 1.0f});
        }}},
      {Field::kMaxTokens, {true, [](double v, Case* c) { c->request.stop.max_tokens = ToInt(v); }}},
      {Field::kMinTokens, {true, [](double v, Case* c) { c->request.stop.min_tokens = ToInt(v); }}},
      {Field::kStopCount,
       {true, [](double v,
                 Case* c) { c->request.stop.strings.assign(std::clamp(v, 0.0, 99.0), "end"); }}},
      {Field::kStopBytes,
       {true,
        [](double v, Case* c) {
          c->request.stop.strings = {std::string(std::clamp(v, 0.0, 9999.0), 'x')};
        }}},
      {Field::kStopTokenId,
       {true, [](double v, Case* c) { c->request.stop.token_ids = {ToInt(v)}; }}},
      {Field::kStopTokenCount,
       {true,
        [](double v, Case* c) { c->request.stop.token_ids.assign(std::clamp(v, 0.0, 999.0), 3); }}},
      {Field::kLogprobs, {true, [](double v, Case* c) { c->request.output.logprobs = ToInt(v); }}},
      {Field::kPromptLogprobs,
       {true, [](double v, Case* c) { c->request.output.prompt_logprobs = ToInt(v); }}},
      {Field::kDeadlineMs,
       {true,
        [](double v, Case* c) {
          c->request.deadline_ms = static_cast<int64_t>(std::clamp(v, -1e15, 1e15));
        }}},
      {Field::kPriority, {true, [](double v, Case* c) { c->request.priority = ToInt(v); }}},
      {Field::kPromptTokenId,
       {true,
        [](double v, Case* c) {
          c->ids = {0, ToInt(v)};
        }}},
      {Field::kRequestIdBytes,
       {true,
        [](double v, Case* c) {
          c->request.request_id = std::string(std::clamp(v, 0.0, 9999.0), 'r');
        }}},
      {Field::kIdempotencyKeyBytes,
       {true,
        [](double v, Case* c) {
          c->request.idempotency_key = std::string(std::clamp(v, 0.0, 9999.0), 'k');
        }}},
      {Field::kThinkingBudget,
       {true, [](double v, Case* c) { c->request.thinking.token_budget = ToInt(v); }}},
      {Field::kCacheSaltBytes,
       {true,
        [](double v, Case* c) {
          c->request.cache.salt = std::string(std::clamp(v, 0.0, 9999.0), 's');
        }}},
  });
  return setters;
}

// Rows that Admit does not check, or whose valid values are refused for another reason; each has
// its own test.
bool HasOwnTest(Field field) {
  return field == Field::kN || field == Field::kModelBytes || field == Field::kMessages ||
         field == Field::kDetokenizeIds || field == Field::kTemplateKwargsBytes;
}

// A count or a size cannot be below 0.
bool IsSize(Field field) {
  return field == Field::kLogitBiasCount || field == Field::kStopCount ||
         field == Field::kStopTokenCount || field == Field::kRequestIdBytes ||
         field == Field::kIdempotencyKeyBytes || field == Field::kCacheSaltBytes;
}

TEST(AdmissionTable, EveryRowHasASetter) {
  for (const FieldLimit& row : FieldLimits()) {
    EXPECT_TRUE(HasOwnTest(row.field) || Setters().contains(row.field)) << row.path;
  }
}

TEST(AdmissionTable, OutsideOfItsRangeEachFieldIsRefusedByName) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::mt19937_64 rng(TestSeed());
  for (const FieldLimit& row : FieldLimits()) {
    if (HasOwnTest(row.field)) continue;
    const Setter& setter = Setters().at(row.field);
    const double max = row.upper == UpperBound::kVocabulary ? Facts().vocab - 1 : row.max;
    std::vector<double> bad = {max + 1, max * 2 + 1, kInfinity, 1e15};
    if (!IsSize(row.field)) bad.insert(bad.end(), {row.min - 1, -1e15, -kInfinity});
    if (row.min_excluded) bad.push_back(row.min);
    if (!setter.integer) bad.insert(bad.end(), {kNan, max + 0.001, row.min - 0.001});
    for (int i = 0; i < 200; ++i) {
      bad.push_back(max + 1 + static_cast<double>(rng() % 1'000'000'000));
      if (!IsSize(row.field))
        bad.push_back(row.min - 1 - static_cast<double>(rng() % 1'000'000'000));
    }
    for (const double value : bad) {
      Case one;
      setter.set(value, &one);
      const auto admitted = AdmitIds(one.request, one.ids);
      ASSERT_EQ(admitted.status().code(), absl::StatusCode::kInvalidArgument)
          << row.path << " = " << value;
      const auto detail = DetailOf(admitted.status());
      ASSERT_TRUE(detail.has_value()) << row.path;
      EXPECT_EQ(detail->reason, "OUT_OF_RANGE") << row.path;
      EXPECT_THAT(detail->field, HasSubstr(std::string(row.path)));
      const std::string message(Message(admitted.status()));
      EXPECT_THAT(message, HasSubstr(std::string(row.path)));
      EXPECT_THAT(message, HasSubstr(std::string(row.way_out)));
    }
  }
}

TEST(AdmissionTable, InsideOfItsRangeEachFieldIsTaken) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::mt19937_64 rng(TestSeed());
  for (const FieldLimit& row : FieldLimits()) {
    if (HasOwnTest(row.field)) continue;
    const Setter& setter = Setters().at(row.field);
    double max = row.upper == UpperBound::kVocabulary ? Facts().vocab - 1 : row.max;
    // The model's context refuses these two first.
    if (row.field == Field::kMaxTokens || row.field == Field::kMinTokens)
      max = Facts().context_tokens - 3;
    std::vector<double> good = {row.min_excluded ? row.min + 0.01 : row.min, max};
    for (int i = 0; i < 200; ++i) {
      const double share = static_cast<double>(rng() % 10'000 + 1) / 10'001;
      const double value = row.min + (max - row.min) * share;
      good.push_back(setter.integer ? std::floor(value) : value);
    }
    for (const double value : good) {
      Case one;
      setter.set(value, &one);
      const auto admitted = AdmitIds(one.request, one.ids);
      EXPECT_TRUE(admitted.ok()) << row.path << " = " << value << ": "
                                 << ToString(admitted.status());
    }
  }
}

// Prints the rows that docs/API.md lacks.
TEST(AdmissionTable, TheManualShowsEveryRow) {
  std::ifstream file(FATHOM_SOURCE_DIR "/docs/API.md");
  std::stringstream manual;
  manual << file.rdbuf();
  for (const FieldLimit& row : FieldLimits()) {
    const std::string max =
        row.upper == UpperBound::kVocabulary ? "vocabulary - 1" : fmt::format("{:.10g}", row.max);
    const std::string line =
        fmt::format("| `{}` | {}{:.10g} to {} | {} | {} |", row.path,
                    row.min_excluded ? "above " : "", row.min, max, row.unit, row.fallback);
    EXPECT_THAT(manual.str(), HasSubstr(line));
  }
}

TEST(Admission, ResolvesRequestThenModelThenOpenAi) {
  PublicRequest request;
  request.sampling.top_p = 0.5f;
  const auto admitted = AdmitIds(request);
  ASSERT_TRUE(admitted.ok());
  const Request& effective = admitted->record.request;
  EXPECT_EQ(effective.sampling.temperature, 0.7f);  // generation_config.json's.
  EXPECT_EQ(effective.sampling.top_p, 0.5f);        // The request's.
  EXPECT_EQ(effective.sampling.top_k, 0);           // OpenAI's.
  EXPECT_EQ(effective.stop.end_token_ids, std::vector<TokenId>{1});
  EXPECT_EQ(admitted->record.seed, 42u);
  EXPECT_EQ(admitted->record.key.request_id, "req");
  request.stop.ignore_eos = true;
  EXPECT_TRUE(AdmitIds(request)->record.request.stop.end_token_ids.empty());
}

TEST(Admission, WithoutMaxTokensTheRestOfContextOrPoolIsTheLimit) {
  ModelFacts facts = Facts();
  EXPECT_EQ(AdmitIds({}, {1, 2, 3}, facts)->record.request.stop.max_tokens, 997);
  facts.pool_tokens = 64;
  EXPECT_EQ(AdmitIds({}, {1, 2, 3}, facts)->record.request.stop.max_tokens, 61);
}

TEST(Admission, PromptMeetsContextAndPool) {
  ModelFacts facts = Facts();
  EXPECT_TRUE(AdmitIds({}, std::vector<TokenId>(999, 5), facts).ok());
  auto status = AdmitIds({}, std::vector<TokenId>(1000, 5), facts).status();
  EXPECT_EQ(DetailOf(status)->reason, "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_THAT(std::string(Message(status)), HasSubstr("1000"));
  facts.pool_tokens = 64;
  EXPECT_TRUE(AdmitIds({}, std::vector<TokenId>(63, 5), facts).ok());
  status = AdmitIds({}, std::vector<TokenId>(64, 5), facts).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status)->reason, "KV_POOL_EXCEEDED");
  PublicRequest request;
  request.stop.max_tokens = 62;
  status = AdmitIds(request, {1, 2, 3}, facts).status();
  EXPECT_EQ(DetailOf(status)->field, "stop.max_tokens");
  EXPECT_THAT(std::string(Message(status)), HasSubstr("lower it to 61"));
}

TEST(Admission, EmptyPromptIsRefused) {
  EXPECT_EQ(DetailOf(AdmitIds({}, {}).status())->reason, "EMPTY_PROMPT");
}

TEST(Admission, TheNumberOfSequences) {
  EXPECT_EQ(AdmitIds({})->record.request.sequences, 1);
  for (const int32_t n : {1, 2, 128}) {
    PublicRequest request;
    request.sampling.n = n;
    const auto admitted = AdmitIds(request);
    ASSERT_TRUE(admitted.ok()) << ToString(admitted.status());
    EXPECT_EQ(admitted->record.request.sequences, n);
  }
  for (const int32_t n : {0, -1, 129, INT32_MAX, INT32_MIN}) {
    PublicRequest request;
    request.sampling.n = n;
    EXPECT_EQ(AdmitIds(request).status().code(), absl::StatusCode::kInvalidArgument) << n;
  }
}

// A record is one message: 48 MiB hold 4 bytes for each token, and 180 more with the
// log-probability and those of 20 alternatives.
TEST(Admission, ARecordFitsIntoOneMessage) {
  ModelFacts facts = Facts();
  facts.context_tokens = facts.pool_tokens = 1 << 20;
  struct Sequences {
    int32_t n, max_tokens;
    std::optional<int32_t> logprobs;
    const char* field;  // nullptr: it fits.
  };
  const Sequences cases[] = {{128, 98'000, {}, nullptr}, {128, 98'304, {}, "sampling.n"},
                             {128, 2'100, 20, nullptr},  {128, 2'400, 20, "sampling.n"},
                             {1, 270'000, 20, nullptr},  {1, 300'000, 20, "stop.max_tokens"},
                             {1, 1'000'000, {}, nullptr}};
  for (const Sequences& each : cases) {
    SCOPED_TRACE(fmt::format("{} sequences of {}", each.n, each.max_tokens));
    PublicRequest request;
    request.sampling.n = each.n;
    request.stop.max_tokens = each.max_tokens;
    request.output.logprobs = each.logprobs;
    const auto status = AdmitIds(request, {1, 2, 3}, facts).status();
    if (each.field == nullptr) {
      EXPECT_TRUE(status.ok()) << ToString(status);
    } else {
      EXPECT_EQ(DetailOf(status)->field, each.field);
      EXPECT_THAT(std::string(Message(status)), HasSubstr("lower sampling.n, stop.max_tokens"));
    }
  }
}

TEST(Admission, UnknownModelIsNotFound) {
  PublicRequest request;
  request.model = "other";
  const auto status = AdmitIds(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DetailOf(status)->reason, "MODEL_NOT_FOUND");
  request.model = std::string(300, 'm');
  EXPECT_EQ(AdmitIds(request).status().code(), absl::StatusCode::kInvalidArgument);
  request.model = "tiny";
  EXPECT_TRUE(AdmitIds(request).ok());
}

TEST(Admission, NamesHaveACharset) {
  for (const char* bad : {"a b", "a/b", "ü", "a\n"}) {
    PublicRequest request;
    request.request_id = bad;
    EXPECT_EQ(DetailOf(AdmitIds(request).status())->field, "request_id") << bad;
  }
  PublicRequest request;
  request.request_id = "Az09._:-";
  EXPECT_TRUE(AdmitIds(request).ok());
  request.idempotency_key = "\x01";
  EXPECT_EQ(DetailOf(AdmitIds(request).status())->field, "idempotency_key");
}

TEST(Admission, MinTokensIsAtMostMaxTokens) {
  PublicRequest request;
  request.stop.max_tokens = 5;
  request.stop.min_tokens = 6;
  EXPECT_EQ(DetailOf(AdmitIds(request).status())->field, "stop.min_tokens");
  request.stop.max_tokens.reset();
  request.stop.min_tokens = 998;  // There is room for 997.
  EXPECT_EQ(DetailOf(AdmitIds(request).status())->reason, "CONTEXT_LENGTH_EXCEEDED");
}

// do_sample false means a default temperature of 0, which a request's own temperature replaces.
TEST(Admission, TheModelsDefaultsHoldWhereTheRequestSaysNothing) {
  ModelFacts facts = Facts();
  facts.defaults = {
      {.temperature = 0.0f, .presence_penalty = 0.5f, .frequency_penalty = 0.25f}, 10, {"END"}, {}};
  auto admitted = AdmitIds({}, {1, 2, 3}, facts);
  ASSERT_TRUE(admitted.ok());
  EXPECT_EQ(admitted->record.request.sampling.temperature, 0.0f);
  EXPECT_EQ(admitted->record.request.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(admitted->record.request.sampling.frequency_penalty, 0.25f);
  EXPECT_EQ(admitted->record.request.stop.min_tokens, 10);
  EXPECT_EQ(admitted->text.stop_strings, std::vector<std::string>{"END"});
  PublicRequest request;
  request.sampling.temperature = 0.8f;
  request.stop.min_tokens = 0;
  request.stop.strings = {"."};
  admitted = AdmitIds(request, {1, 2, 3}, facts);
  EXPECT_EQ(admitted->record.request.sampling.temperature, 0.8f);
  EXPECT_EQ(admitted->record.request.stop.min_tokens, 0);
  EXPECT_EQ(admitted->text.stop_strings, std::vector<std::string>{"."});
  request.stop.min_tokens.reset();
  request.stop.max_tokens = 4;  // A default never makes a request invalid.
  EXPECT_EQ(AdmitIds(request, {1, 2, 3}, facts)->record.request.stop.min_tokens, 4);
}

TEST(Admission, NoRequestBringsASuppressedTokenBack) {
  ModelFacts facts = Facts();
  facts.defaults.suppressed_ids = {3, 8};
  PublicRequest request;
  request.sampling.logit_bias = {{2, 1.0f}, {3, 100.0f}, {9, -1.0f}};
  const auto admitted = AdmitIds(request, {1}, facts);
  ASSERT_TRUE(admitted.ok());
  EXPECT_EQ(admitted->record.request.sampling.logit_bias,
            (std::vector<std::pair<TokenId, float>>{
                {2, 1.0f}, {3, kSuppressedBias}, {8, kSuppressedBias}, {9, -1.0f}}));
  facts.defaults.suppressed_ids.clear();
  for (TokenId id = 0; id < 30; ++id) facts.defaults.suppressed_ids.push_back(id);
  request.sampling.logit_bias.clear();
  for (TokenId id = 30; id < 1024; ++id) request.sampling.logit_bias.emplace_back(id, 1.0f);
  facts.vocab = 4096;
  EXPECT_TRUE(AdmitIds(request, {31}, facts).ok());
  request.sampling.logit_bias.emplace_back(1024, 1.0f);
  const auto refused = AdmitIds(request, {31}, facts).status();
  EXPECT_EQ(DetailOf(refused)->field, "sampling.logit_bias");
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("send 994 entries or fewer"));
}

TEST(Admission, WithoutTokenizerIdsAreServed) {
  ModelFacts facts = Facts();
  facts.has_tokenizer = false;
  PublicRequest request;
  ASSERT_TRUE(AdmitIds(request, {1}, facts).ok());
  EXPECT_FALSE(AdmitIds(request, {1}, facts)->text.want_text);
  request.stop.strings = {"x"};
  EXPECT_EQ(DetailOf(AdmitIds(request, {1}, facts).status())->reason, "NO_TOKENIZER");
  request.stop.strings.clear();
  request.output.text = true;
  EXPECT_EQ(DetailOf(AdmitIds(request, {1}, facts).status())->field, "output.text");
  request.output.text.reset();
  request.output.ids = false;
  EXPECT_EQ(DetailOf(AdmitIds(request, {1}, facts).status())->reason, "NOTHING_TO_SEND");
}

}  // namespace
}  // namespace fathom::router
