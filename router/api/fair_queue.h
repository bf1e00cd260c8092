// router/api/fair_queue.h: a bounded queue that shares its workers' time fairly between clients.
// Of the clients that have something waiting, the one that has used the least time comes
// next; what runs counts while it runs. A client that comes new, or comes back, starts where the
// least of the busy ones stands: nobody saves time up. When nothing waits or runs, all is
// forgotten. Thread: none of its own; its owner locks. Time is an argument.
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
  // REQUIRES: capacity > 0, of items that wait.
  explicit FairQueue(size_t capacity) : capacity_(capacity) { FATHOM_CHECK(capacity > 0); }

  struct Taken {
    std::string client;
    Item item;
  };

  // Adds an item. In a full queue the client with the most waiting items loses its newest: the item
  // that there is no room for is returned.
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

  // The next item, oldest first within a client; nullopt when none waits. Done is called for it.
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

  // An item of this client that was popped at `started` has ended.
  void Done(const std::string& client, TimeUs started, TimeUs now) {
    const auto it = clients_.find(client);
    FATHOM_CHECK(it != clients_.end() && it->second.running > 0);
    it->second.used_us += std::max<int64_t>(0, now - started);
    it->second.started_sum_us -= started;
    --it->second.running;
    --running_;
    Leave(client);
  }

  // Takes out every waiting item that `gone` is true of.
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
  // Clients that it remembers.
  size_t clients() const { return clients_.size(); }

 private:
  struct Client {
    std::deque<Item> waiting;
    int64_t used_us = 0;  // By items that have ended.
    int64_t running = 0;
    int64_t started_sum_us = 0;  // When the running ones started.

    int64_t UsedUs(TimeUs now) const { return used_us + running * now - started_sum_us; }
    bool idle() const { return waiting.empty() && running == 0; }
  };

  Client& Enter(const std::string& name) {
    if (clients_.size() >= kRememberedMax) Forget();
    Client& client = clients_[name];
    if (client.idle()) client.used_us = std::max(client.used_us, floor_us_);
    return client;
  }

  // A client that used more than the others is remembered until they have caught up.
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
  int64_t floor_us_ = 0;  // Time used by the client that was served last; never falls while busy.
  std::map<std::string, Client> clients_;
};

}  // namespace fathom::router
