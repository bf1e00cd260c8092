// The router's API, used by a front end of the test that has no protocol. This test links neither
// gRPC nor protobuf.
#include "router/api/inference_api.h"

#include <gmock/gmock.h>

#include <latch>

#include "tests/router/api_world.h"

namespace fathom::router {
namespace {

// Keeps the events that are written. A write ends when the test calls Drain.
class PlainStream final : public SessionStream {
 public:
  explicit PlainStream(Sessions* sessions) : SessionStream(sessions) {}
  void Break() override {}
  void Drain() {
    while (std::exchange(writing_, false)) Written(true);
  }
  using SessionStream::Closed;

  std::string text() const {
    std::string text;
    for (const ClientEvent& event : events_) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) text += tokens->text;
    }
    return text;
  }
  const ClientEvent& first() const { return events_.front(); }
  const ClientEvent& last() const { return events_.back(); }
  // The status of the stream. REQUIRES: the stream ended with an EndEvent.
  absl::Status end() const { return std::get<EndEvent>(events_.back()).status; }

 private:
  void Write(const ClientEvent& event) override {
    events_.push_back(event);
    writing_ = !std::holds_alternative<EndEvent>(event);
  }
  std::vector<ClientEvent> events_;
  bool writing_ = false;
};

struct Refusals final : ApiObserver {
  std::vector<absl::StatusCode> codes;
  void Refused(absl::StatusCode code) override { codes.push_back(code); }
};

class InferenceApiTest : public SessionsTest {
 protected:
  ~InferenceApiTest() override {
    for (const auto& stream : streams_) stream->Closed();
  }

  void Ready() {
    stream_ = StreamId{1};
    link_.set_current(stream_);
    sessions_.OnUp(stream_, world_.Facts(), kProtocolMax);
  }
  std::shared_ptr<PlainStream> Stream() {
    streams_.push_back(std::make_shared<PlainStream>(&sessions_));
    return streams_.back();
  }
  std::shared_ptr<PlainStream> Generate(const CallContext& call, const GenerateRequest& request,
                                        size_t bytes = 0) {
    const auto stream = Stream();
    api_->Generate(
        call, bytes, [request] { return absl::StatusOr<GenerateRequest>(request); }, stream);
    return stream;
  }
  static GenerateRequest Text(const std::string& text) { return {{}, text}; }
  static GenerateRequest Chat(const std::string& content) {
    ChatPrompt chat;
    chat.messages.push_back({.role = "user", .content = content});
    return {{}, chat};
  }
  static std::string ReasonOf(const absl::Status& status) {
    const auto detail = DetailOf(status);
    return detail ? detail->reason : std::string();
  }

  Refusals refusals_;
  ApiWorld world_{&sessions_, &clock_, &refusals_};
  InferenceApi* const api_ = world_.api.get();
  std::vector<std::shared_ptr<PlainStream>> streams_;
};

TEST_F(InferenceApiTest, ATextBecomesEventsOfASessionOfItsTenant) {
  Ready();
  const auto stream = Generate({.tenant = "someone"}, Text("The capital"));
  const Submit submit = AcceptAll().at(0);
  EXPECT_EQ(submit.key.tenant, "someone");
  stream->Drain();
  Send(End(Frame(submit.attempt, 0, Ids(" of France")), FinishReason::kLength));
  stream->Drain();
  EXPECT_EQ(std::get<StartedEvent>(stream->first()).request_id, submit.key.request_id);
  EXPECT_EQ(stream->text(), " of France");
  EXPECT_TRUE(std::get<FinishEvent>(stream->last()).last);
  EXPECT_TRUE(refusals_.codes.empty());
}

TEST_F(InferenceApiTest, MessagesAreRenderedAndTheirThinkingIsApart) {
  Ready();
  GenerateRequest request = Chat("Hello");
  const auto stream = Generate({}, request);
  const Submit submit = AcceptAll().at(0);
  ChatPrompt chat = std::get<ChatPrompt>(request.prompt);
  const auto rendered = api_->Tokenize({}, {.input = chat});
  ASSERT_TRUE(rendered.ok());
  EXPECT_EQ(rendered->ids, submit.record->prompt_ids);
  EXPECT_NE(submit.router_blob.find("\"chat\":true"), std::string::npos);
  stream->Drain();
}

// Two requests of one key and body share a record, whatever their deadlines; another body does not.
TEST_F(InferenceApiTest, AnIdempotencyKeyHoldsForThePlainRequest) {
  Ready();
  GenerateRequest request = Text("once");
  request.params.idempotency_key = "k";
  Generate({}, request);
  const SessionKey key = AcceptAll().at(0).key;
  request.params.deadline_ms = 1000;
  Generate({}, request);
  EXPECT_EQ(AcceptAll().at(0).key, key);
  request.params.output.keep_special = true;
  EXPECT_EQ(ReasonOf(Generate({}, request)->end()), "IDEMPOTENCY_KEY_REUSED");
  request.params.idempotency_key = "l";
  Generate({}, request);
  EXPECT_NE(AcceptAll().at(0).key, key);
}

TEST_F(InferenceApiTest, RefusalsAreToldAndCounted) {
  EXPECT_EQ(ReasonOf(Generate({}, Text("x"))->end()), "NO_SCHEDULER");
  Ready();
  EXPECT_EQ(ReasonOf(Generate({}, {})->end()), "EMPTY_PROMPT");
  const auto unreadable = Stream();
  api_->Generate(
      {}, 0, [] { return absl::StatusOr<GenerateRequest>(Invalid("no JSON")); }, unreadable);
  EXPECT_EQ(unreadable->end(), Invalid("no JSON"));
  const auto resumed = Stream();
  api_->Resume({}, ResumeRequest{"a", {-1}}, resumed);
  EXPECT_EQ(DetailOf(resumed->end())->field, "next_positions");
  api_->Drain();
  EXPECT_EQ(ReasonOf(Generate({}, Text("x"))->end()), "DRAINING");
  EXPECT_EQ(ReasonOf(api_->GetStatus().ready), "DRAINING");
  EXPECT_THAT(
      refusals_.codes,
      ::testing::ElementsAre(absl::StatusCode::kUnavailable, absl::StatusCode::kInvalidArgument,
                             absl::StatusCode::kInvalidArgument, absl::StatusCode::kInvalidArgument,
                             absl::StatusCode::kUnavailable));
}

TEST_F(InferenceApiTest, AResumeGoesOnWithItsTenantsSession) {
  Ready();
  GenerateRequest request = Text("x");
  request.params.request_id = "a";
  Generate({.tenant = "someone"}, request);
  const Submit submit = AcceptAll().at(0);
  Send(Frame(submit.attempt, 0, {10, 11}));
  const auto other = Stream(), own = Stream();
  api_->Resume({}, ResumeRequest{"a", {}}, other);
  EXPECT_FALSE(link_.TakeSubmits().at(0).record.has_value());  // The "a" of another tenant.
  api_->Resume({.tenant = "someone"}, ResumeRequest{"a", {2}}, own);
  EXPECT_TRUE(link_.TakeSubmits().at(0).record.has_value());
}

// The shorter one of the two deadlines counts, and the time in the pool counts too.
TEST_F(InferenceApiTest, DeadlinesRunWhileACallWaits) {
  Ready();
  GenerateRequest request = Text("x");
  request.params.deadline_ms = 500;
  Generate({.deadline_ms = 200}, request);
  EXPECT_EQ(link_.TakeSubmits().at(0).deadline_us, 200'000);
  std::latch occupied(1), release(1);
  world_.pool.Run({.client = "busy", .run = [&] {
                     occupied.count_down();
                     release.wait();
                   }});
  occupied.wait();
  const auto late = Generate({.deadline_ms = 200}, request, /*bytes=*/1 << 20);
  const auto in_time = Generate({}, request, /*bytes=*/1 << 20);
  clock_.Advance(300'000);
  release.count_down();
  EXPECT_EQ(link_.WaitForSubmits().at(0).deadline_us, 200'000);
  EXPECT_EQ(ReasonOf(late->end()), "DEADLINE");  // The pool's only thread took it first.
}

TEST_F(InferenceApiTest, ValidateChecksAndMakesNoSession) {
  GenerateRequest request = Text("The capital");
  EXPECT_FALSE(api_->Validate({}, request).ok());  // No scheduler.
  Ready();
  request.params.sampling.temperature = 0;
  const auto started = api_->Validate({}, request);
  ASSERT_TRUE(started.ok()) << ToString(started.status());
  EXPECT_EQ(started->prompt_tokens, std::ssize(Ids("The capital")) + 1);  // And BOS.
  EXPECT_EQ(started->request.stop.max_tokens, 4096 - started->prompt_tokens);
  EXPECT_EQ(started->request.sampling.temperature, 0);
  EXPECT_EQ(started->fingerprint, "fp");
  // The id decides the seed, so the request with this id would have this seed.
  request.params.request_id = started->request_id;
  EXPECT_EQ(api_->Validate({}, request)->seed, started->seed);
  request.params.stop.max_tokens = 4096;
  EXPECT_EQ(ReasonOf(api_->Validate({}, request).status()), "CONTEXT_LENGTH_EXCEEDED");
  api_->Drain();
  EXPECT_EQ(ReasonOf(api_->Validate({}, Text("x")).status()), "DRAINING");
  EXPECT_TRUE(link_.TakeSubmits().empty());
  EXPECT_EQ(sessions_.view().open, 0);
  EXPECT_TRUE(refusals_.codes.empty());
}

TEST_F(InferenceApiTest, WhatIsServed) {
  EXPECT_EQ(api_->GetModel("")->fingerprint, "");
  EXPECT_EQ(api_->GetModel("")->context_tokens, world_.folder.context_tokens);
  Ready();
  const auto model = api_->GetModel("tiny");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->fingerprint, "fp");
  EXPECT_EQ(model->context_tokens, 4096);
  EXPECT_EQ(model->pool_tokens, 512 * 16);
  EXPECT_TRUE(model->has_chat_template);
  EXPECT_EQ(ReasonOf(api_->GetModel("other").status()), "MODEL_NOT_FOUND");
  EXPECT_TRUE(api_->GetStatus().ready.ok());
  for (const FieldLimit& limit : api_->GetLimits()) {
    if (limit.upper == UpperBound::kVocabulary) {
      EXPECT_EQ(limit.max, world_.folder.vocab - 1);
    }
  }
  const auto ids = api_->Tokenize({}, {.input = "Hello, 你好", .add_special_tokens = false});
  ASSERT_TRUE(ids.ok());
  EXPECT_FALSE(ids->rendered.has_value());
  EXPECT_EQ(*api_->Detokenize({.ids = ids->ids}), "Hello, 你好");
  EXPECT_EQ(DetailOf(api_->Detokenize({.ids = {-1}}).status())->field, "ids[0]");
}

}  // namespace
}  // namespace fathom::router
