// Sessions with threads, for TSan: a scheduler that sends, a leader that changes, a clock that
// ticks, and clients that come, read, leave and resume, all at the same time. Every answer that a
// client reads to its end is exact.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "router/sessions/session_stream.h"
#include "tests/router/session_fixture.h"

namespace fathom::router {
namespace {

constexpr int kClients = 4;
constexpr int kRequestsPerClient = 60;
constexpr int32_t kTokens = 24;

std::vector<TokenId> AnswerOf(const SessionKey& key) {
  std::vector<TokenId> ids;
  const auto start = static_cast<TokenId>(std::hash<std::string>{}(key.request_id) % 1000);
  for (TokenId i = 0; i < kTokens; ++i) ids.push_back(100 + start + i);
  return ids;
}

// Plays the scheduler: it accepts each Submit and then sends the tokens from the router's position
// on, a few at a time.
class Scheduler {
 public:
  Scheduler(Sessions* sessions, FakeLink* link) : sessions_(sessions), link_(link) {}

  void NewLeader() {
    live_.clear();
    link_->set_current({});
    sessions_->OnDown(stream_);
    stream_ = StreamId{stream_.value + 1};
    link_->set_current(stream_);
    SchedulerFacts facts;
    facts.cluster.groups = 1;
    sessions_->OnUp(stream_, facts, kProtocolMax);
  }

  void Step() {
    for (const fathom::Submit& submit : link_->TakeSubmits()) {
      Accepted accepted;
      accepted.attempt = submit.attempt;
      sessions_->OnAccepted(accepted);
      live_.push_back(
          {submit.attempt, submit.have.empty() ? 0 : submit.have[0], AnswerOf(submit.key)});
    }
    std::vector<fathom::Frame> frames;
    for (Live& live : live_) {
      fathom::Frame frame;
      frame.attempt = live.attempt;
      frame.position = live.next;
      const int32_t to = std::min(kTokens, live.next + 3);
      frame.ids.assign(live.ids.begin() + live.next, live.ids.begin() + to);
      live.next = to;
      if (to == kTokens) frame.finish = FrameFinish{FinishReason::kLength, {}};
      frames.push_back(std::move(frame));
    }
    std::erase_if(live_, [](const Live& live) { return live.next == kTokens; });
    sessions_->OnFrames(stream_, frames);
  }

 private:
  struct Live {
    AttemptId attempt;
    int32_t next;
    std::vector<TokenId> ids;
  };
  Sessions* const sessions_;
  FakeLink* const link_;
  StreamId stream_;
  std::vector<Live> live_;
};

TEST(SessionsThreads, EveryAnswerIsExact) {
  const RealClock clock;
  FakeLink link;
  SessionObserver observer;
  Sessions sessions({}, &clock, &link, &TinyTokenizer(), &observer);
  std::atomic<int> running = kClients;
  std::atomic<int> exact = 0;

  const auto client = [&](int index) {
    std::mt19937 rng(static_cast<uint32_t>(index));
    for (int i = 0; i < kRequestsPerClient; ++i) {
      const std::string id = fmt::format("{}-{}", index, i);
      AdmittedRequest admitted;
      admitted.record.key = {"default", id};
      admitted.record.prompt_ids = {1, 2, 3};
      admitted.record.request.stop.max_tokens = kTokens;
      auto sink = std::make_shared<TestClient>(&sessions);
      sink->Begin(*sessions.Create(std::move(admitted), sink));
      const bool leaves = rng() % 2 == 0;
      while (!sink->seen().over() && !(leaves && sink->seen().ids.size() > 4))
        std::this_thread::yield();
      const Seen seen = sink->seen();  // Called once, because the stream may end between two calls.
      std::vector<TokenId> ids = seen.ids;
      if (!seen.over()) {
        sessions.HangUp(sink->session());
        ids = sink->seen().ids;
        auto again = std::make_shared<TestClient>(&sessions);
        again->Begin(*sessions.Resume({"default", id}, {static_cast<int32_t>(ids.size())}, again));
        while (!again->seen().over()) std::this_thread::yield();
        const std::vector<TokenId> rest = again->seen().ids;
        ids.insert(ids.end(), rest.begin(), rest.end());
        sessions.Gone(again->session());
      }
      sessions.Gone(sink->session());
      if (ids == AnswerOf({"default", id})) ++exact;
    }
    --running;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) threads.emplace_back(client, i);
  threads.emplace_back([&] {
    while (running > 0) {
      sessions.Tick();
      std::this_thread::yield();
    }
  });
  Scheduler scheduler(&sessions, &link);
  for (int step = 0; running > 0; ++step) {
    if (step % 50 == 0) scheduler.NewLeader();
    scheduler.Step();
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(exact, kClients * kRequestsPerClient);
  EXPECT_EQ(sessions.view().open, 0u);
  EXPECT_TRUE(link.resets().empty());
}

class Reports final : public ReportSink {
 public:
  void Ended(const RequestReport& report) override {
    std::lock_guard lock(mutex_);
    reports_.push_back(report);
  }
  std::vector<RequestReport> Take() {
    std::lock_guard lock(mutex_);
    return std::exchange(reports_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<RequestReport> reports_;
};

// After a stop string the client's stream ends and the scheduler's timings come, at the same moment
// in two threads. The report has the timings whichever is first, and it is given out once.
TEST(SessionsThreads, AReportGetsItsTimingsWhicheverEndIsFirst) {
  constexpr int kRounds = 300;
  const RealClock clock;
  SessionObserver observer;
  for (int round = 0; round < kRounds; ++round) {
    FakeLink link;
    Reports reports;
    Sessions sessions({}, &clock, &link, &TinyTokenizer(), &observer, &reports);
    link.set_current(StreamId{1});
    sessions.OnUp(StreamId{1}, TinyFacts(), kProtocolMax);
    AdmittedRequest admitted;
    admitted.record.key = {"default", "r"};
    admitted.record.prompt_ids = {1, 2, 3};
    admitted.record.request.stop.max_tokens = 100;
    admitted.text.stop_strings = {"fox"};
    auto sink = std::make_shared<TestClient>(&sessions);
    sink->Begin(*sessions.Create(std::move(admitted), sink));
    fathom::Frame frame;
    frame.attempt = link.TakeSubmits().at(0).attempt;
    sessions.OnAccepted({.attempt = frame.attempt});
    frame.ids = Ids("the fox jumps");
    sessions.OnFrames(StreamId{1}, {&frame, 1});
    ASSERT_TRUE(sink->seen().over());

    fathom::Frame end;
    end.attempt = frame.attempt;
    end.finish = FrameFinish{FinishReason::kStopString, {}};
    end.timings = RequestTimings{.queue_us = 1, .phase = RequestPhase::kEnded};
    std::atomic<int> waiting = 3;
    const auto at_once = [&](const std::function<void()>& run) {
      return std::thread([&waiting, run] {
        for (--waiting; waiting > 0;) std::this_thread::yield();
        run();
      });
    };
    std::thread threads[] = {at_once([&] { sessions.Gone(sink->session()); }), at_once([&] {
                               sessions.OnFrames(StreamId{1}, {&end, 1});
                             }),
                             at_once([&] {
                               sessions.Explain({"default", "r"}, [](const auto&) {});
                             })};
    for (std::thread& thread : threads) thread.join();
    const std::vector<RequestReport> given = reports.Take();
    ASSERT_EQ(given.size(), 1u) << "round " << round;
    ASSERT_TRUE(given[0].timings.has_value()) << "round " << round;
    bool known = false;
    sessions.Explain({"default", "r"}, [&](const absl::StatusOr<RequestReport>& report) {
      known = report.ok() && report->timings.has_value();
    });
    ASSERT_TRUE(known) << "round " << round;
  }
}

// Threads make streams at the same moment. There are never more streams than the limit, and of
// several requests with different bodies and the same idempotency key only one gets a stream.
TEST(SessionsThreads, TheStreamLimitAndAnIdempotencyKeyHoldForCallsAtOneMoment) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 400;
  SessionsOptions options;
  options.open_max = 2;
  RealClock clock;
  FakeLink link;
  SessionObserver observer;
  for (int round = 0; round < kRounds; ++round) {
    const bool one_key = round % 2 == 0;
    Sessions sessions(options, &clock, &link, nullptr, &observer);
    std::atomic<int> waiting = kThreads;
    std::atomic<int> made = 0;
    std::vector<std::shared_ptr<Session>> kept(kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        AdmittedRequest admitted;
        admitted.record.key = {"default", fmt::format("{}", i)};
        admitted.record.prompt_ids = {i};
        if (one_key) admitted.idempotency_key = "key";
        auto sink = std::make_shared<TestClient>(&sessions);
        for (--waiting; waiting > 0;) std::this_thread::yield();
        const auto session = sessions.Create(std::move(admitted), sink);
        if (session.ok()) kept[i] = *session, ++made;
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(made, one_key ? 1 : 2) << "round " << round;
    ASSERT_EQ(sessions.view().open, static_cast<size_t>(made));
    for (const auto& session : kept) {
      if (session != nullptr) session->Detach();
    }
  }
}

// A stream whose writes end on a thread of its own.
class ThreadedStream final : public SessionStream {
 public:
  explicit ThreadedStream(Sessions* sessions) : SessionStream(sessions) {}
  ~ThreadedStream() override { thread_.join(); }

  void Break() override {}
  void Begin(std::shared_ptr<Session> session) {
    thread_ = std::thread([this] { Serve(); });
    SessionStream::Begin(std::move(session));
  }
  // Waits for the end of the stream and returns the ids of its tokens.
  std::vector<TokenId> WaitForIds() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return over_; });
    return ids_;
  }
  using SessionStream::Closed;

 private:
  void Write(const ClientEvent& event) override {
    EXPECT_EQ(in_flight_++, 0) << "two writes in flight";
    std::lock_guard lock(mutex_);
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      ids_.insert(ids_.end(), tokens->ids.begin(), tokens->ids.end());
    }
    const auto* finish = std::get_if<FinishEvent>(&event);
    over_ = finish != nullptr && finish->last;
    written_ = true;
    changed_.notify_all();
  }
  void Serve() {
    while (true) {
      bool over = false;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return written_; });
        written_ = false;
        over = over_;
      }
      if (over) return;
      --in_flight_;
      Written(true);
    }
  }

  std::atomic<int> in_flight_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenId> ids_;
  bool written_ = false;
  bool over_ = false;
  std::thread thread_;
};

// Frames and ticks wake the stream while its writes end on another thread. Two writes are never in
// flight, and each token is written once and in order.
TEST(SessionsThreads, OneWriteInFlightWhoeverWakes) {
  const RealClock clock;
  FakeLink link;
  SessionObserver observer;
  SessionsOptions options;
  options.keep_alive_us = 0;  // Each tick wakes the stream.
  Sessions sessions(options, &clock, &link, nullptr, &observer);
  Scheduler scheduler(&sessions, &link);
  scheduler.NewLeader();
  std::atomic<bool> done = false;
  std::thread ticks([&] {
    while (!done) sessions.Tick();
  });
  for (int i = 0; i < 100; ++i) {
    AdmittedRequest admitted;
    admitted.record.key = {"default", fmt::format("{}", i)};
    admitted.record.prompt_ids = {1};
    admitted.record.request.stop.max_tokens = kTokens;
    const std::vector<TokenId> answer = AnswerOf(admitted.record.key);
    auto stream = std::make_shared<ThreadedStream>(&sessions);
    stream->Begin(*sessions.Create(std::move(admitted), stream));
    for (int32_t step = 0; step < kTokens; ++step) scheduler.Step();
    EXPECT_EQ(stream->WaitForIds(), answer);
    stream->Closed();
  }
  done = true;
  ticks.join();
}

}  // namespace
}  // namespace fathom::router
