// Which call is ended, compared with a model that searches all calls.
#include "rpc/waiting_calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace fathom::rpc {
namespace {

using Time = std::chrono::steady_clock::time_point;

class FakeCall {
 public:
  FakeCall(std::string peer, int64_t began_us)
      : peer_(std::move(peer)), began_(std::chrono::microseconds(began_us)) {}
  const std::string& peer() const { return peer_; }
  Time began() const { return began_; }

 private:
  std::string peer_;
  Time began_;
};
using CallPtr = std::shared_ptr<FakeCall>;

// A model: a list of the calls in their order.
class Model {
 public:
  CallPtr Add(const CallPtr& call, size_t calls_max) {
    calls_.push_back(call);
    if (calls_.size() <= calls_max) return nullptr;
    std::map<std::string, size_t> counts;
    for (const CallPtr& each : calls_) ++counts[each->peer()];
    const auto most = std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) {
      return std::pair(a.second, a.first) < std::pair(b.second, b.first);
    });
    const auto oldest = std::find_if(calls_.begin(), calls_.end(), [&](const CallPtr& each) {
      return each->peer() == most->first;
    });
    CallPtr gives_way = *oldest;
    calls_.erase(oldest);
    return gives_way;
  }
  void Remove(const CallPtr& call) { std::erase(calls_, call); }
  CallPtr TakeOlderThan(Time time) {
    if (calls_.empty() || calls_.front()->began() >= time) return nullptr;
    CallPtr late = calls_.front();
    calls_.erase(calls_.begin());
    return late;
  }
  size_t size() const { return calls_.size(); }

 private:
  std::vector<CallPtr> calls_;
};

TEST(WaitingCalls, AreAsTheModelHasThem) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const size_t calls_max = 1 + rng() % 20;
    WaitingCalls<FakeCall> waiting(calls_max);
    Model model;
    std::vector<CallPtr> made;
    for (int64_t now_us = 0; now_us < 2'000; ++now_us) {
      const uint64_t what = rng() % 10;
      if (what < 6) {
        // Peer 0 is the one that floods.
        const uint64_t peer = rng() % 2 == 0 ? 0 : rng() % 6;
        made.push_back(std::make_shared<FakeCall>(std::to_string(peer), now_us));
        ASSERT_EQ(waiting.Add(made.back()), model.Add(made.back(), calls_max));
      } else if (what < 9 && !made.empty()) {
        const CallPtr& call = made[rng() % made.size()];  // It may have been removed already.
        waiting.Remove(call.get());
        model.Remove(call);
      } else {
        const Time time{std::chrono::microseconds(now_us - static_cast<int64_t>(rng() % 40))};
        ASSERT_EQ(waiting.TakeOlderThan(time), model.TakeOlderThan(time));
      }
      ASSERT_EQ(waiting.size(), model.size());
    }
  }
}

}  // namespace
}  // namespace fathom::rpc
