// Random values converted to messages and back, and the refusals of cluster/wire.h.
#include "cluster/wire_parts.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>

#include "cluster.pb.h"

namespace fathom {
namespace {

namespace pb = cluster::v1;

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed ? std::strtoull(seed, nullptr, 10) : 20240229;
}

class Random {
 public:
  explicit Random(uint64_t seed) : rng_(seed) {}
  int32_t Int(int32_t below) { return static_cast<int32_t>(rng_() % below); }
  uint64_t U64() { return rng_(); }
  float Float() { return static_cast<float>(Int(2'000'001) - 1'000'000) / 4096.0f; }
  bool Coin() { return rng_() % 2 == 0; }
  std::string Text() { return std::string(Int(12), static_cast<char>('a' + Int(26))); }
  std::vector<int32_t> Ints() {
    std::vector<int32_t> values(Int(20));
    for (int32_t& value : values) value = static_cast<int32_t>(rng_());
    return values;
  }

  TokenLogprob Logprob() {
    TokenLogprob value{Int(1 << 20), Float(), Ints(), {}};
    for (size_t i = 0; i < value.top_ids.size(); ++i) value.top_logprobs.push_back(Float());
    return value;
  }
  std::vector<TokenLogprob> Logprobs(size_t count) {
    std::vector<TokenLogprob> values;
    for (size_t i = 0; i < count; ++i) values.push_back(Logprob());
    return values;
  }
  PromptLogprobs Prompt() { return {1 + Int(100), Logprobs(Int(4))}; }
  FinishReason Reason() { return static_cast<FinishReason>(Int(7)); }

  Request MakeRequest() {
    Request value;
    ForEachSamplingField([&](const SamplingField&, auto field, auto) {
      auto& number = value.sampling.*field;
      if (Coin()) number = static_cast<std::decay_t<decltype(number)>>(Coin() ? Float() : Int(100));
    });
    for (int32_t id = Int(50); id < 200; id += 1 + Int(100)) {
      value.sampling.logit_bias.emplace_back(id, Float());
    }
    if (Coin()) value.thinking = {Int(1000), Int(1000), Int(1000), Coin()};
    value.stop = {Int(1000), Int(1000), Ints(), Ints()};
    if (Coin()) value.output.logprobs = Int(20);
    if (Coin()) value.output.prompt_logprobs = Int(20);
    value.sequences = 1 + Int(4);
    return value;
  }

  Record MakeRecord() {
    Record value{{Text(), Text()}, Text(), MakeRequest(), U64(), Ints(), {}, {}};
    if (Coin()) value.prompt_logprobs = Logprobs(static_cast<size_t>(Int(4)));
    if (Coin()) value.priority = Int(9) - 4;
    for (int32_t i = 0; Coin() && i < value.request.sequences; ++i) {
      value.sequences.resize(value.request.sequences);
      value.sequences[i].ids = Ints();
      if (Coin()) value.sequences[i].logprobs = Logprobs(value.sequences[i].ids.size());
      value.sequences[i].finish = Reason();
      for (int32_t j = 0; j < Int(3); ++j) {
        value.sequences[i].fingerprints.push_back(
            {j * 10 + Int(10), Text(), {Text(), Text(), Text(), Int(8), Int(9)}});
      }
    }
    return value;
  }

  StepPlan MakePlan() {
    StepPlan value{TermId{U64()}, EpochId{U64()}, StepId{U64()}, {}, {}, {}, {}, {}};
    for (int32_t i = Int(4); i > 0; --i) {
      value.copies.push_back(
          {static_cast<CopyOperation>(Int(2)), BlockId{Int(1000)}, BlockId{Int(1000)}});
    }
    for (int32_t i = Int(4); i > 0; --i) value.releases.push_back(SlotId{Int(1000)});
    for (int32_t i = Int(4); i > 0; --i) {
      value.admits.push_back(
          {SlotId{Int(100)}, MakeRequest(), U64(), Int(4), Int(100), Int(100), Ints(), Coin()});
    }
    for (int32_t i = Int(4); i > 0; --i) {
      value.extends.push_back({SlotId{Int(100)}, {BlockId{Int(100)}, BlockId{Int(100)}}});
    }
    for (int32_t i = Int(8); i > 0; --i) {
      Chunk chunk{SlotId{Int(100)}, 1 + Int(1000), Coin()};
      if (Coin()) chunk.work = DecodeRow{StepId{U64()}, Int(kDraftsMax + 1)};
      value.chunks.push_back(chunk);
    }
    return value;
  }

  StepResult MakeResult() {
    StepResult value{
        TermId{U64()}, EpochId{U64()}, StepId{U64()}, Int(8), {}, {Int(1000), Int(1000), Int(1000)},
        U64()};
    for (int32_t i = Int(6); i > 0; --i) {
      ResultRow row{Int(100), Int(4), Int(1000), Ints(), {}, {}, static_cast<RowFault>(Int(4))};
      if (Coin()) row.logprobs = Logprobs(row.ids.size());
      if (Coin()) row.prompt_logprobs = Prompt();
      if (Coin()) row.drafted = Int(kDraftsMax + 1);
      if (Coin()) row.fault_detail = "layer " + std::to_string(Int(60));
      value.rows.push_back(std::move(row));
    }
    return value;
  }

 private:
  std::mt19937_64 rng_;
};

// Converts to bytes and back, as between processes. The message is reused, as in streams.
template <class Message, class Value>
void ExpectRoundTrip(const Value& value) {
  static Message message;
  Message parsed;
  ToWire(value, &message);
  ASSERT_TRUE(parsed.ParseFromString(message.SerializeAsString()));
  auto back = FromWire(parsed);
  ASSERT_TRUE(back.ok()) << ToString(back.status());
  EXPECT_EQ(*back, value);
}

TEST(Wire, RoundTripsAnyValue) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  Random random(TestSeed());
  for (int i = 0; i < 500; ++i) {
    ExpectRoundTrip<pb::Request>(random.MakeRequest());
    ExpectRoundTrip<pb::Record>(random.MakeRecord());
    ExpectRoundTrip<pb::StepPlan>(random.MakePlan());
    ExpectRoundTrip<pb::StepResult>(random.MakeResult());
    ExpectRoundTrip<pb::TokenLogprob>(random.Logprob());
    ExpectRoundTrip<pb::PromptLogprobs>(random.Prompt());
  }
}

TEST(Wire, FinishReasonsRoundTripAndUnknownIsNone) {
  for (int i = 0; i < 7; ++i) {
    const auto reason = static_cast<FinishReason>(i);
    EXPECT_EQ(FinishReasonFromWire(FinishReasonToWire(reason)), reason);
  }
  EXPECT_EQ(FinishReasonFromWire(1000), FinishReason::kNone);
  EXPECT_EQ(FinishReasonFromWire(-1), FinishReason::kNone);
}

TEST(Wire, AbsentSamplingFieldsTakeTheDefaults) {
  pb::Request message;
  message.set_n(1);
  auto request = FromWire(message);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(*request, Request{});
}

// A peer of an older build refuses a field that it does not know, so one that is not used is not
// sent.
TEST(Wire, DefaultSamplingValuesAreLeftOut) {
  Request request;
  pb::Request message;
  ToWire(request, &message);
  EXPECT_EQ(message.sampling().ByteSizeLong(), 0u) << message.DebugString();
  EXPECT_FALSE(message.has_thinking());
  request.sampling.typical_p = 0.5f;
  ToWire(request, &message);
  EXPECT_EQ(message.sampling().typical_p(), 0.5f);
  EXPECT_EQ(message.sampling().ByteSizeLong(), 5u) << message.DebugString();
}

template <class WireMessage>
void ExpectRefused(const WireMessage& message, const std::string& field) {
  auto value = FromWire(message);
  ASSERT_FALSE(value.ok()) << message.DebugString();
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(fathom::Message(value.status()).find(field), std::string_view::npos)
      << fathom::Message(value.status());
}

TEST(Wire, RefusesWhatAPeerGotWrong) {
  pb::Request request;
  ExpectRefused(request, "Request.n");
  request.set_n(1);
  for (const int id : {7, 7}) request.mutable_sampling()->add_logit_bias()->set_id(id);
  ExpectRefused(request, "Request.sampling.logit_bias");

  pb::Record record;
  ExpectRefused(record, "Record.key");
  record.mutable_key();
  ExpectRefused(record, "Record.request");
  record.mutable_request()->set_n(1);
  record.add_sequences();
  ASSERT_TRUE(FromWire(record).ok());
  record.mutable_sequences(0)->set_finish(static_cast<pb::FinishReason>(99));
  ExpectRefused(record, "SequenceRecord.finish");
  record.mutable_sequences(0)->clear_finish();
  record.mutable_sequences(0)->add_logprobs();
  ExpectRefused(record, "SequenceRecord.logprobs");
  record.mutable_sequences(0)->clear_logprobs();
  record.add_sequences();
  ExpectRefused(record, "Record.sequences");

  pb::StepPlan plan;
  plan.add_copies()->set_kind(static_cast<pb::CopyKind>(9));
  ExpectRefused(plan, "BlockCopy.kind");
  plan.clear_copies();
  pb::Chunk* chunk = plan.add_chunks();
  ExpectRefused(plan, "Chunk.arithmetic");
  chunk->set_arithmetic(pb::ARITHMETIC_PREFILL);
  ExpectRefused(plan, "ARITHMETIC_PREFILL");
  chunk->set_arithmetic(pb::ARITHMETIC_CANONICAL);
  ExpectRefused(plan, "Chunk.work");
  chunk->set_count(0);
  ExpectRefused(plan, "Chunk.count");
  chunk->set_count(1);
  ASSERT_TRUE(FromWire(plan).ok());
  pb::Admit* admit = plan.add_admits();
  admit->mutable_ids()->Resize(kAdmitIdsMax + 1, 0);
  ExpectRefused(plan, "Admit.ids");
  admit->clear_ids();
  plan.add_grammars();
  ExpectRefused(plan, "Grammar.digest");
  plan.clear_grammars();
  plan.clear_admits();
  plan.clear_chunks();
  plan.add_extends()->set_block_kind(static_cast<pb::BlockKind>(7));
  ExpectRefused(plan, "Extend.block_kind");
  plan.mutable_extends(0)->set_block_kind(pb::BLOCK_KIND_TOKENS);
  ASSERT_TRUE(FromWire(plan).ok());
  plan.clear_extends();
  plan.add_copies()->set_kind(pb::COPY_KIND_BLOCK);
  plan.mutable_copies(0)->set_block_kind(static_cast<pb::BlockKind>(7));
  ExpectRefused(plan, "BlockCopy.block_kind");

  pb::StepResult result;
  result.add_rows()->set_fault(static_cast<pb::RowFault>(99));
  ExpectRefused(result, "ResultRow.fault");
  result.mutable_rows(0)->clear_fault();
  result.mutable_rows(0)->add_logprobs();
  ExpectRefused(result, "ResultRow.logprobs");

  pb::TokenLogprob logprob;
  logprob.add_top_ids(1);
  ExpectRefused(logprob, "TokenLogprob.top_logprobs");
  ExpectRefused(pb::PromptLogprobs(), "PromptLogprobs.start");
}

TEST(Wire, RefusesAFieldThatOnlyANewerBuildKnows) {
  const auto add = [](google::protobuf::Message* message) {
    message->GetReflection()->MutableUnknownFields(message)->AddVarint(1000, 1);
  };
  pb::Request request;
  request.set_n(1);
  add(request.mutable_sampling());
  ExpectRefused(request, "fathom.cluster.v1.Sampling: field number 1000");
  request.clear_sampling();
  add(&request);
  ExpectRefused(request, "fathom.cluster.v1.Request: field number 1000");
  pb::StepPlan plan;
  pb::Chunk* chunk = plan.add_chunks();
  chunk->set_arithmetic(pb::ARITHMETIC_CANONICAL);
  chunk->set_count(1);
  add(chunk);
  ExpectRefused(plan, "fathom.cluster.v1.Chunk: field number 1000");
  plan.clear_chunks();
  add(plan.add_admits());
  ExpectRefused(plan, "fathom.cluster.v1.Admit: field number 1000");
}

}  // namespace
}  // namespace fathom
