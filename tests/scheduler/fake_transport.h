// tests/scheduler/fake_transport.h: an in-process Transport. With a ManualClock everything runs
// deterministically in one thread: if no event waits, Next moves the clock to its deadline.
// Otherwise Next waits, and peers may be other threads.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

class FakeTransport final : public Transport {
 public:
  explicit FakeTransport(ManualClock* manual = nullptr) : manual_(manual) {}

  // ---- Functions for the peers; any thread ------------------------------------------------------

  PeerId Open(StreamKind kind) {
    std::lock_guard lock(mutex_);
    const PeerId peer{++peers_};
    open_[peer].kind = kind;
    PushLocked(peer, PeerUp{});
    return peer;
  }
  void Say(PeerId peer, UpMessage message) {
    std::lock_guard lock(mutex_);
    if (!open_[peer].closed) PushLocked(peer, std::move(message));
  }
  void Break(PeerId peer) {
    std::lock_guard lock(mutex_);
    if (!std::exchange(open_[peer].broken, true) && !open_[peer].closed)
      PushLocked(peer, PeerDown{"broke"});
  }
  void BreakAll() {
    std::lock_guard lock(mutex_);
    for (auto& [peer, stream] : open_) stream.broken = true;
    said_.notify_all();
  }
  // Waits for the next message to `peer` (with a ManualClock it does not wait). nullopt: the stream
  // has ended or is empty.
  std::optional<DownMessage> Hear(PeerId peer) {
    std::unique_lock lock(mutex_);
    Stream& stream = open_[peer];
    if (!manual_)
      said_.wait(lock, [&] { return !stream.outbox.empty() || stream.closed || stream.broken; });
    if (stream.outbox.empty()) return std::nullopt;
    DownMessage message = std::move(stream.outbox.front());
    stream.outbox.pop_front();
    return message;
  }
  // The next message of one kind; messages of other kinds before it are dropped.
  template <class T>
  std::optional<T> HearA(PeerId peer) {
    while (auto message = Hear(peer)) {
      if (auto* found = std::get_if<T>(&*message)) return std::move(*found);
    }
    return std::nullopt;
  }
  std::optional<absl::Status> closed(PeerId peer) {
    std::lock_guard lock(mutex_);
    return open_[peer].closed;
  }
  // The kinds of all messages (index in DownMessage) in the order in which they were sent, to any
  // peer.
  std::vector<size_t> sent() {
    std::lock_guard lock(mutex_);
    return sent_;
  }
  bool idle() {
    std::lock_guard lock(mutex_);
    return events_.empty();
  }

  // ---- Transport --------------------------------------------------------------------------------

  std::optional<TransportEvent> Next(TimeUs deadline) override {
    std::unique_lock lock(mutex_);
    if (manual_) {
      if (events_.empty() && deadline > manual_->Now()) manual_->Advance(deadline - manual_->Now());
    } else {
      const auto wait =
          std::chrono::microseconds(std::max<TimeUs>(0, deadline - RealClock().Now()));
      came_.wait_for(lock, std::min(wait, std::chrono::microseconds(1'000'000)),
                     [&] { return !events_.empty(); });
    }
    if (events_.empty()) return std::nullopt;
    TransportEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  using Transport::Send;
  void Send(std::span<const PeerId> peers, const DownMessage& message) override {
    std::lock_guard lock(mutex_);
    sent_.push_back(message.index());
    for (const PeerId peer : peers) {
      Stream& stream = open_[peer];
      if (!stream.closed && !stream.broken) stream.outbox.push_back(message);
    }
    said_.notify_all();
  }
  void Close(PeerId peer, const absl::Status& status) override {
    std::lock_guard lock(mutex_);
    if (!open_[peer].closed) open_[peer].closed = status;
    std::erase_if(events_, [peer](const TransportEvent& event) { return event.peer == peer; });
    said_.notify_all();
  }
  void StopServing() override {}
  bool Flushed() const override { return true; }
  TransportStats Stats() const override { return {}; }

 private:
  struct Stream {
    StreamKind kind = StreamKind::kRoute;
    std::deque<DownMessage> outbox;
    std::optional<absl::Status> closed;
    bool broken = false;
  };

  void PushLocked(PeerId peer, UpMessage message) {
    events_.push_back({peer, open_[peer].kind, std::move(message)});
    came_.notify_one();
  }

  ManualClock* const manual_;
  std::mutex mutex_;
  std::condition_variable came_, said_;
  int64_t peers_ = 0;
  std::deque<TransportEvent> events_;
  std::map<PeerId, Stream> open_;
  std::vector<size_t> sent_;
};

}  // namespace fathom::scheduler
