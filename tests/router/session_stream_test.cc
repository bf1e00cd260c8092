// A front end's stream over a session: at most one write is in flight, whichever thread wakes the
// stream, and a client may leave at any moment.
#include "router/sessions/session_stream.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

// A stream whose writes end when the test completes them.
class ManualStream final : public SessionStream {
 public:
  explicit ManualStream(Sessions* sessions) : SessionStream(sessions) {}

  void Break() override { Complete(false); }
  void Complete(bool ok = true) {
    writing_ = false;
    Written(ok);
  }
  // Completes writes until nothing is left to be written.
  void CompleteAll() {
    while (writing_) Complete();
  }
  using SessionStream::Cancelled;
  using SessionStream::Closed;

  const std::vector<ClientEvent>& events() const { return events_; }
  absl::Status end() const {
    const auto* end = events_.empty() ? nullptr : std::get_if<EndEvent>(&events_.back());
    return end == nullptr ? absl::OkStatus() : end->status;
  }

 private:
  void Write(const ClientEvent& event) override {
    EXPECT_FALSE(std::exchange(writing_, true)) << "two writes in flight";
    events_.push_back(event);
    if (std::holds_alternative<EndEvent>(event)) writing_ = false;
  }

  bool writing_ = false;
  std::vector<ClientEvent> events_;
};

class SessionStreamTest : public SessionsTest {
 protected:
  ~SessionStreamTest() override {
    for (const auto& stream : streams_) stream->Closed();
  }
  std::shared_ptr<ManualStream> Make() {
    streams_.push_back(std::make_shared<ManualStream>(&sessions_));
    return streams_.back();
  }
  std::shared_ptr<ManualStream> Begun(const std::string& id) {
    const auto stream = Make();
    stream->Begin(*sessions_.Create(Request(id), stream));
    return stream;
  }
  std::vector<std::shared_ptr<ManualStream>> streams_;
};

TEST_F(SessionStreamTest, WhatComesDuringAWriteWaitsForItsEnd) {
  Up();
  const auto stream = Begun("a");
  const AttemptId attempt = AcceptAll()[0].attempt;
  ASSERT_EQ(stream->events().size(), 1u);
  EXPECT_TRUE(std::holds_alternative<StartedEvent>(stream->events()[0]));
  for (int32_t i = 0; i < 3; ++i) Send(Frame(attempt, i, {10 + i}));
  EXPECT_EQ(stream->events().size(), 1u);
  stream->Complete();
  ASSERT_EQ(stream->events().size(), 2u);
  EXPECT_EQ(std::get<TokensEvent>(stream->events()[1]).ids, (std::vector<TokenId>{10, 11, 12}));
  Send(End(Frame(attempt, 3, {1}), FinishReason::kEndToken));
  stream->CompleteAll();
  ASSERT_EQ(stream->events().size(), 4u);
  EXPECT_TRUE(std::get<FinishEvent>(stream->events()[3]).last);
}

TEST_F(SessionStreamTest, ARefusalIsItsOnlyEvent) {
  const auto stream = Make();
  stream->Refuse(Invalid("no"));
  EXPECT_EQ(stream->events().size(), 1u);
  EXPECT_EQ(stream->end(), Invalid("no"));
}

TEST_F(SessionStreamTest, AClientThatLeavesBeforeItsSessionIsThereIsNotSubmitted) {
  Up();
  const auto stream = Make();
  stream->Cancelled();
  stream->Begin(*sessions_.Create(Request("a"), stream));
  EXPECT_TRUE(absl::IsCancelled(stream->end()));
  EXPECT_TRUE(link_.TakeSubmits().empty());
}

TEST_F(SessionStreamTest, AClientThatLeavesOrCannotBeReachedIsSuspendedAndToldOnce) {
  Up();
  const auto leaves = Begun("a");
  const auto breaks = Begun("b");
  const auto submits = AcceptAll();
  leaves->Cancelled();
  EXPECT_EQ(leaves->events().size(), 1u);  // Its write is still in flight.
  leaves->Complete();
  breaks->Complete(false);
  for (const auto& stream : {leaves, breaks}) {
    EXPECT_EQ(stream->events().size(), 2u);
    EXPECT_TRUE(absl::IsCancelled(stream->end()));
    stream->Cancelled();
    EXPECT_EQ(stream->events().size(), 2u);
  }
  EXPECT_EQ(link_.suspends(), (std::vector<AttemptId>{submits[0].attempt, submits[1].attempt}));
}

TEST_F(SessionStreamTest, AReaderThatIsStuckIsBroken) {
  Up();
  const auto stream = Begun("a");
  AcceptAll();
  clock_.Advance(61'000'000);
  sessions_.Tick();
  EXPECT_TRUE(absl::IsCancelled(stream->end()));
  EXPECT_EQ(link_.suspends().size(), 1u);
}

}  // namespace
}  // namespace fathom::router
