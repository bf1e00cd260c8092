// rpc/waiting_calls.h: the calls of a port whose first message has not come, ordered by age and by
// connection. If there are too many, the oldest call of the connection with the most of them must
// end. So a hostile connection uses up only its own places, and a client with one or two calls
// keeps them. Each operation takes time logarithmic in the number of connections. Thread: the owner
// locks.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

namespace fathom::rpc {

// `Call` must have peer(), which names the connection, and began().
template <class Call>
class WaitingCalls {
 public:
  explicit WaitingCalls(size_t calls_max) : calls_max_(calls_max) {}

  size_t size() const { return calls_.size(); }

  // Returns the call that must end and no longer waits; null: there was room. It may be `call`
  // itself, if no connection has more calls than the connection of `call`.
  std::shared_ptr<Call> Add(const std::shared_ptr<Call>& call) {
    const auto connection = connections_.try_emplace(call->peer()).first;
    Place place;
    place.by_age = calls_.insert(calls_.end(), call);
    Recount(connection,
            [&](Calls& calls) { place.by_connection = calls.insert(calls.end(), call); });
    places_.emplace(call.get(), place);
    if (calls_.size() <= calls_max_) return nullptr;
    const std::string most = by_count_.rbegin()->second;
    std::shared_ptr<Call> gives_way = connections_.at(most).front();
    Remove(gives_way.get());
    return gives_way;
  }

  // Does nothing if the call does not wait.
  void Remove(const Call* call) {
    const auto place = places_.find(call);
    if (place == places_.end()) return;
    // Its peer() is needed until the end.
    const std::shared_ptr<Call> held = *place->second.by_age;
    const auto connection = connections_.find(held->peer());
    Recount(connection, [&](Calls& calls) { calls.erase(place->second.by_connection); });
    if (connection->second.empty()) connections_.erase(connection);
    calls_.erase(place->second.by_age);
    places_.erase(place);
  }

  // Removes and returns the oldest call if it began before `time`; else null.
  std::shared_ptr<Call> TakeOlderThan(std::chrono::steady_clock::time_point time) {
    if (calls_.empty() || calls_.front()->began() >= time) return nullptr;
    std::shared_ptr<Call> late = calls_.front();
    Remove(late.get());
    return late;
  }

 private:
  using Calls = std::list<std::shared_ptr<Call>>;
  using Connections = std::unordered_map<std::string, Calls>;
  struct Place {
    typename Calls::iterator by_age;
    typename Calls::iterator by_connection;
  };

  template <class Change>
  void Recount(typename Connections::iterator connection, const Change& change) {
    by_count_.erase({connection->second.size(), connection->first});
    change(connection->second);
    const size_t count = connection->second.size();
    if (count > 0) by_count_.emplace(count, connection->first);
  }

  const size_t calls_max_;
  Calls calls_;  // The oldest first.
  Connections connections_;
  std::set<std::pair<size_t, std::string>> by_count_;  // The number of calls of each connection.
  std::unordered_map<const Call*, Place> places_;
};

}  // namespace fathom::rpc
