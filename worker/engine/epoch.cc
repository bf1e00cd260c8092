#include "worker/engine/epoch.h"

#include <algorithm>
#include <utility>

namespace fathom::worker {

void Epoch::Abort(const absl::Status& reason) {
  std::lock_guard lock(mutex_);
  if (aborted_.load(std::memory_order_relaxed)) return;
  reason_ = reason.ok() ? Aborted("the epoch ended") : reason;
  aborted_.store(true, std::memory_order_release);
  for (auto& [number, callback] : callbacks_) callback();
  callbacks_.clear();
  changed_.notify_all();
}

absl::Status Epoch::status() const {
  std::lock_guard lock(mutex_);
  return reason_;
}

int Epoch::OnAbort(std::function<void()> callback) {
  std::lock_guard lock(mutex_);
  const int number = next_callback_++;
  if (aborted_.load(std::memory_order_relaxed)) {
    callback();
  } else {
    callbacks_.emplace_back(number, std::move(callback));
  }
  return number;
}

void Epoch::Forget(int callback) {
  std::lock_guard lock(mutex_);
  std::erase_if(callbacks_, [&](const auto& entry) { return entry.first == callback; });
}

void Epoch::PushExchange(Exchange exchange) {
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    full = exchanges_.size() >= kExchangesMax;
    if (!full) exchanges_.push_back(std::move(exchange));
    changed_.notify_all();
  }
  if (full)
    Abort(Internal("more than {} exchanges wait in epoch {}", kExchangesMax, seat_.epoch.value));
}

absl::StatusOr<std::string> Epoch::WaitExchange(int32_t round, int32_t rank,
                                                std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(mutex_);
  while (true) {
    if (!reason_.ok()) return Aborted("epoch {} ended: {}", seat_.epoch.value, Message(reason_));
    auto it = std::find_if(exchanges_.begin(), exchanges_.end(), [&](const Exchange& exchange) {
      return exchange.round == round && exchange.rank == rank;
    });
    if (it != exchanges_.end()) {
      std::string bytes = std::move(it->bytes);
      exchanges_.erase(it);
      return bytes;
    }
    if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
      return DeadlineExceeded("rank {} sent nothing for round {} of epoch {} within {} ms", rank,
                              round, seat_.epoch.value, timeout.count());
    }
  }
}

}  // namespace fathom::worker
