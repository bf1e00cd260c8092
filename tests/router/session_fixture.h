// tests/router/session_fixture.h: Sessions over a fake link, a manual clock and the bundled model's
// tokenizer, and a client that reads when the test tells it to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "router/sessions/sessions.h"
#include "tests/router/fake_link.h"

namespace fathom::router {

inline const Tokenizer& TinyTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    auto loaded = Tokenizer::Load(FATHOM_SOURCE_DIR "/models/fathom-tiny");
    EXPECT_TRUE(loaded.ok()) << ToString(loaded.status());
    return *std::move(loaded);
  }();
  return *tokenizer;
}

inline std::vector<TokenId> Ids(const std::string& text) { return *TinyTokenizer().Encode(text); }

// Of a scheduler with a group.
inline SchedulerFacts TinyFacts() {
  SchedulerFacts facts;
  facts.term = TermId{1};
  facts.cluster.model = "tiny";
  facts.cluster.fingerprint = "fp";
  facts.cluster.context_tokens = 4096;
  facts.cluster.groups = 1;
  return facts;
}

// What a client received of one sequence.
struct SeenSequence {
  std::vector<TokenId> ids;
  std::string text;
};

// What a client received; ids and text of several sequences in the order in which they came.
struct Seen {
  bool started = false;
  std::vector<TokenId> ids;
  std::string text;
  std::string reasoning;
  std::vector<TokenLogprob> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;
  std::map<int32_t, SeenSequence> sequences;
  std::vector<FinishEvent> finishes;
  std::optional<absl::Status> end;
  int messages = 0;  // Messages with tokens.
  int keep_alives = 0;
  bool over() const { return end.has_value() || (!finishes.empty() && finishes.back().last); }
};

class TestClient final : public ClientSink, public std::enable_shared_from_this<TestClient> {
 public:
  explicit TestClient(Sessions* sessions) : sessions_(sessions) {}

  void Begin(std::shared_ptr<Session> session) {
    session_ = std::move(session);
    sessions_->Submit(session_);
  }
  void Wake() override {
    while (auto event = sessions_->Take(session_)) {
      std::unique_lock lock(mutex_);
      Record(*event);
      if (stalled_) {
        stuck_ = true;
        return;
      }
      lock.unlock();
      sessions_->WriteDone(session_);
    }
  }
  void Break() override {
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
    }
    Unstall();
  }
  // A write that begins does not end until Unstall.
  void Stall() {
    std::lock_guard lock(mutex_);
    stalled_ = true;
  }
  void Unstall() {
    bool stuck = false;
    {
      std::lock_guard lock(mutex_);
      stalled_ = false;
      stuck = std::exchange(stuck_, false);
    }
    if (stuck) sessions_->WriteDone(session_);
    Wake();
  }
  Seen seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  bool broken() const {
    std::lock_guard lock(mutex_);
    return broken_;
  }
  const std::shared_ptr<Session>& session() const { return session_; }

 private:
  void Record(const ClientEvent& event) {
    if (std::holds_alternative<StartedEvent>(event)) seen_.started = true;
    if (const auto* prompt = std::get_if<PromptLogprobs>(&event)) {
      EXPECT_EQ(prompt->start, 1 + static_cast<int32_t>(seen_.prompt_logprobs.size()));
      seen_.prompt_logprobs.insert(seen_.prompt_logprobs.end(), prompt->logprobs.begin(),
                                   prompt->logprobs.end());
    }
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      EXPECT_TRUE(seen_.started);
      SeenSequence& sequence = seen_.sequences[tokens->sequence];
      int32_t& first_position = first_positions_[tokens->sequence];
      if (!tokens->ids.empty() && !sequence.ids.empty()) {
        EXPECT_EQ(tokens->position, first_position + static_cast<int32_t>(sequence.ids.size()));
      } else if (!tokens->ids.empty()) {
        first_position = tokens->position;
      }
      sequence.ids.insert(sequence.ids.end(), tokens->ids.begin(), tokens->ids.end());
      sequence.text += tokens->text;
      seen_.ids.insert(seen_.ids.end(), tokens->ids.begin(), tokens->ids.end());
      seen_.logprobs.insert(seen_.logprobs.end(), tokens->logprobs.begin(), tokens->logprobs.end());
      seen_.text += tokens->text;
      seen_.reasoning += tokens->reasoning;
      ++seen_.messages;
    }
    if (const auto* finish = std::get_if<FinishEvent>(&event)) seen_.finishes.push_back(*finish);
    if (std::holds_alternative<KeepAliveEvent>(event)) ++seen_.keep_alives;
    if (const auto* end = std::get_if<EndEvent>(&event)) seen_.end = end->status;
  }

  Sessions* const sessions_;
  std::shared_ptr<Session> session_;
  mutable std::mutex mutex_;
  Seen seen_;
  std::map<int32_t, int32_t> first_positions_;
  bool stalled_ = false;
  bool stuck_ = false;
  bool broken_ = false;
};

struct Counts final : SessionObserver {
  int64_t dropped = 0, resubmitted = 0, resets = 0;
  std::vector<std::string> ended;
  std::vector<FinishedRequest> finished;
  void Finished(const FinishedRequest& request) override { finished.push_back(request); }
  void Ended(const std::string& outcome) override { ended.push_back(outcome); }
  void DroppedTokens(int64_t tokens) override { dropped += tokens; }
  void Resubmitted() override { ++resubmitted; }
  void StreamReset() override { ++resets; }
};

class SessionsTest : public ::testing::Test {
 protected:
  // Session and client hold each other until the client has left.
  ~SessionsTest() override {
    for (const auto& client : clients_) client->session()->Detach();
  }
  SessionsTest() : sessions_({}, &clock_, &link_, &TinyTokenizer(), &counts_) {}

  // The stream of a new leader.
  void Up() {
    stream_ = StreamId{stream_.value + 1};
    link_.set_current(stream_);
    sessions_.OnUp(stream_, TinyFacts(), kProtocolMax);
  }
  void Down() {
    link_.set_current({});
    sessions_.OnDown(stream_);
  }
  static AdmittedRequest Request(const std::string& id) {
    AdmittedRequest admitted;
    admitted.record.key = {"default", id};
    admitted.record.model = "tiny";
    admitted.record.prompt_ids = {0, 3, 4};
    admitted.record.seed = 7;
    admitted.record.request.stop.max_tokens = 100;
    admitted.record.request.stop.end_token_ids = {1};
    return admitted;
  }
  std::shared_ptr<TestClient> Start(AdmittedRequest admitted) {
    auto client = std::make_shared<TestClient>(&sessions_);
    auto session = sessions_.Create(std::move(admitted), client);
    EXPECT_TRUE(session.ok()) << ToString(session.status());
    clients_.push_back(client);
    client->Begin(*session);
    return client;
  }
  std::shared_ptr<TestClient> Resume(const std::string& id, std::vector<int32_t> next) {
    auto client = std::make_shared<TestClient>(&sessions_);
    auto session = sessions_.Resume({"default", id}, std::move(next), client);
    EXPECT_TRUE(session.ok()) << ToString(session.status());
    clients_.push_back(client);
    client->Begin(*session);
    return client;
  }
  // Accepts everything that was submitted and returns the Submits.
  std::vector<fathom::Submit> AcceptAll() {
    std::vector<fathom::Submit> submits = link_.TakeSubmits();
    for (const fathom::Submit& submit : submits) {
      Accepted accepted;
      accepted.attempt = submit.attempt;
      accepted.request_id = submit.key.request_id;
      accepted.seed = submit.record ? submit.record->seed : 7;
      sessions_.OnAccepted(accepted);
    }
    return submits;
  }
  static fathom::Frame Frame(AttemptId attempt, int32_t position, std::vector<TokenId> ids) {
    fathom::Frame frame;
    frame.attempt = attempt;
    frame.position = position;
    frame.ids = std::move(ids);
    return frame;
  }
  static fathom::Frame End(fathom::Frame frame, FinishReason reason) {
    FrameFinish end;
    end.reason = reason;
    end.usage.completion_tokens = frame.position + static_cast<int32_t>(frame.ids.size());
    frame.finish = end;
    frame.timings =
        RequestTimings{.queue_us = 30, .prefill_us = 200, .phase = RequestPhase::kEnded};
    return frame;
  }
  void Send(fathom::Frame frame) { sessions_.OnFrames(stream_, {&frame, 1}); }
  void Leave(const std::shared_ptr<TestClient>& client) {
    sessions_.HangUp(client->session());
    sessions_.Gone(client->session());
  }

  ManualClock clock_;
  FakeLink link_;
  Counts counts_;
  Sessions sessions_;
  StreamId stream_;
  std::vector<std::shared_ptr<TestClient>> clients_;
};

}  // namespace fathom::router
