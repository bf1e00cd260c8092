// router/api/fair_queue.h: a bounded queue that shares the time of a few threads fairly between
// clients. Pop takes an item of the client that has used the least time; the time of items that
// still run counts too. A client that is new, or that was idle, starts with the time of the client
// that was served last, so an idle client gets no advantage later. When no item waits or runs, the
// queue forgets all clients. Thread: the owner locks. Time is an argument.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/types.h"

namespace fathom::router {

template <class Item>
class FairQueue {
 public:
  // `capacity`: the most items that wait. REQUIRES: capacity > 0.
  explicit FairQueue(size_t capacity) : capacity_(capacity) { FATHOM_CHECK(capacity > 0); }

  struct Taken {
    std::string client;
    Item item;
  };

  // Adds an item. If the queue is full, the newest item of the client with the most waiting items
  // is removed and returned, so a client with many items cannot push out those of others. The
  // returned item may be `item` itself.
  std::optional<Item> Push(const std::string& client, Item item) {
    Client& mine = Enter(client);
    if (waiting_ < capacity_) {
      mine.waiting.push_back(std::move(item));
      ++waiting_;
      return std::nullopt;
    }
    Client* most = &mine;
    for (auto& [name, other] : clients_) {
      if (other.waiting.size() > most->waiting.size() + (most == &mine ? 1 : 0)) most = &other;
    }
    if (most == &mine) {
      Leave(client);
      return item;
    }
    Item refused = std::move(most->waiting.back());
    most->waiting.pop_back();
    mine.waiting.push_back(std::move(item));
    return refused;
  }

  // The next item; within a client, the oldest one. nullopt: none waits. The caller must call Done
  // when the item has ended.
  std::optional<Taken> Pop(TimeUs now) {
    auto next = clients_.end();
    for (auto it = clients_.begin(); it != clients_.end(); ++it) {
      if (it->second.waiting.empty()) continue;
      if (next == clients_.end() || it->second.UsedUs(now) < next->second.UsedUs(now)) next = it;
    }
    if (next == clients_.end()) return std::nullopt;
    Client& client = next->second;
    floor_us_ = std::max(floor_us_, client.UsedUs(now));
    Taken taken{next->first, std::move(client.waiting.front())};
    client.waiting.pop_front();
    --waiting_;
    ++running_;
    ++client.running;
    client.started_sum_us += now;
    return taken;
  }

  // An item of `client` that was popped at `started` has ended.
  void Done(const std::string& client, TimeUs started, TimeUs now) {
    const auto it = clients_.find(client);
    FATHOM_CHECK(it != clients_.end() && it->second.running > 0);
    it->second.used_us += std::max<int64_t>(0, now - started);
    it->second.started_sum_us -= started;
    --it->second.running;
    --running_;
    Leave(client);
  }

  // Removes and returns every waiting item for which `gone` returns true.
  template <class Predicate>
  std::vector<Item> TakeIf(const Predicate& gone) {
    std::vector<Item> taken;
    for (auto& [name, client] : clients_) {
      for (auto item = client.waiting.begin(); item != client.waiting.end();) {
        if (!gone(*item)) {
          ++item;
          continue;
        }
        taken.push_back(std::move(*item));
        item = client.waiting.erase(item);
        --waiting_;
      }
    }
    return taken;
  }

  size_t waiting() const { return waiting_; }
  // The number of clients that the queue remembers.
  size_t clients() const { return clients_.size(); }

 private:
  struct Client {
    std::deque<Item> waiting;
    int64_t used_us = 0;  // The time of items that have ended.
    int64_t running = 0;
    int64_t started_sum_us = 0;  // The sum of the times at which the running items started.

    int64_t UsedUs(TimeUs now) const { return used_us + running * now - started_sum_us; }
    bool idle() const { return waiting.empty() && running == 0; }
  };

  Client& Enter(const std::string& name) {
    if (clients_.size() >= kRememberedMax) Forget();
    Client& client = clients_[name];
    if (client.idle()) client.used_us = std::max(client.used_us, floor_us_);
    return client;
  }

  // An idle client that has used more time than floor_us_ is remembered. Otherwise a client could
  // get rid of its used time by a pause.
  void Leave(const std::string& name) {
    if (waiting_ == 0 && running_ == 0) {
      clients_.clear();
      floor_us_ = 0;
      return;
    }
    const auto it = clients_.find(name);
    if (it->second.idle() && it->second.used_us <= floor_us_) clients_.erase(it);
  }

  void Forget() {
    std::erase_if(clients_, [](const auto& entry) { return entry.second.idle(); });
  }

  static constexpr size_t kRememberedMax = 4096;  // Far above `capacity` and the number of workers.

  const size_t capacity_;
  size_t waiting_ = 0;
  size_t running_ = 0;
  // The time used by the client that was served last. It never decreases while an item waits or
  // runs.
  int64_t floor_us_ = 0;
  std::map<std::string, Client> clients_;
};

}  // namespace fathom::router
