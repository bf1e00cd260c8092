#include "rpc/connections.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "common/process.h"
#include "rpc/handover.h"
#include "rpc/sockets.h"

namespace fathom::rpc {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{250};
constexpr int kReceiveBufferBytes = 128 << 10;  // The kernel allocates twice as much.
constexpr int64_t kTicksToLookAtMemory = 20;
constexpr double kForgivenPerSecond = 0.5;
constexpr double kForgivenBurst = 4;
// A busy process may learn up to 2 s late of the call to which bytes belong.
constexpr int kLooksOverMax = 8;
// The calls that a client which also sends large messages may give up between two checks.
constexpr int64_t kGaveUpMax = 16;
// When a connection is cut, so are those of its address with more calls that gRPC has not reported.
constexpr int64_t kUnreportedOfAccomplices = 64;
constexpr size_t kBarredMax = 4096;
constexpr uint64_t kWake = 0;
constexpr uint64_t kListen = 1;
constexpr uint64_t kFirstConnection = 2;

}  // namespace

class Connections::Impl {
 public:
  Impl(Listener listener, const ConnectionLimits& limits)
      : limits_(limits), listener_(std::move(listener)) {
    const size_t descriptors = DescriptorLimit();
    const size_t reserved = std::min(limits.descriptors_reserved, descriptors / 2);
    connections_max_ = limits.connections_max > 0
                           ? limits.connections_max
                           : std::max<size_t>(1, (descriptors - reserved) / 2);
    // A descriptor above this number is not given to a client, whichever part of the process has
    // the others.
    fd_max_ = static_cast<int>(descriptors - reserved / 2);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    FATHOM_CHECK(epoll_ >= 0 && wake_ >= 0, "epoll, eventfd: {}", strerror(errno));
    Watch(wake_, kWake, EPOLLIN);
    // Connections inherit this option. With it, the bytes of a flood wait on the sender's machine.
    setsockopt(listener_.fd(), SOL_SOCKET, SO_RCVBUF, &kReceiveBufferBytes,
               sizeof kReceiveBufferBytes);
  }

  ~Impl() {
    Stop();
    for (auto& [id, connection] : connections_) {
      if (connection.gate != nullptr) CloseGate(connection.gated_fd, connection.gate.get());
      close(connection.watched_fd);
    }
    close(epoll_);
    close(wake_);
  }

  int port() const { return listener_.port(); }

  void AddTo(grpc::ServerBuilder* builder,
             const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    handover_.AddTo(builder, credentials);
  }

  void Start(std::function<void()> tick) {
    tick_ = std::move(tick);
    handover_.Start();
    Watch(listener_.fd(), kListen, EPOLLIN);
    thread_ = std::thread([this] { Run(); });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_.fd(), nullptr);
    // A flood may occupy a thread of handover_, so floods are cut until those threads have ended.
    handover_.Stop();
    const uint64_t one = 1;
    static_cast<void>(!write(wake_, &one, sizeof one));
    thread_.join();
  }

  int64_t CallBegan(const std::string& peer) {
    std::lock_guard lock(mutex_);
    Connection* connection = Find(peer);
    if (connection == nullptr) return 1;
    connection->calls += 1;
    if (connection->gate != nullptr) connection->gate->CallReported();
    if (const auto place = std::exchange(connection->idle_place, std::nullopt)) {
      idle_.erase(*place);
    }
    if (connection->calls > limits_.calls_max) Cut(connection, "it has too many calls");
    return connection->calls;
  }

  void MessageAwaited(const std::string& peer) {
    std::lock_guard lock(mutex_);
    if (Connection* connection = Find(peer)) connection->awaited += 1;
  }

  void MessageCame(const std::string& peer, size_t bytes) {
    std::lock_guard lock(mutex_);
    Connection* connection = Find(peer);
    if (connection == nullptr) return;
    connection->expected_bytes += static_cast<int64_t>(bytes);
    connection->awaited = std::max<int64_t>(0, connection->awaited - 1);
  }

  void NoMessageCame(const std::string& peer) {
    std::lock_guard lock(mutex_);
    Connection* connection = Find(peer);
    if (connection == nullptr) return;
    connection->awaited = std::max<int64_t>(0, connection->awaited - 1);
    connection->gave_up += 1;
    // The bytes may have been one message that was too large. This is accepted only sometimes;
    // otherwise a flood could hide behind it.
    if (connection->forgiven.Add(1, kForgivenPerSecond, steady_clock::now()) <= kForgivenBurst) {
      connection->expected_bytes += 2 * limits_.message_bytes_max;
    }
  }

  void CallEnded(const std::string& peer, CallEnd end) {
    std::lock_guard lock(mutex_);
    Connection* connection = Find(peer);
    // A call of an earlier connection from the same port may end late.
    if (connection == nullptr || connection->calls == 0) return;
    connection->calls -= 1;
    if (connection->calls == 0) SetIdle(connection);
    if (end == CallEnd::kAnswered) {
      connection->expected_bytes += limits_.stray_bytes_per_answer;
      return;
    }
    const double level =
        connection->abandoned.Add(1, limits_.abandoned_per_second_max, steady_clock::now());
    if (level > limits_.abandoned_burst) Cut(connection, "it cancels its calls at once");
  }

  ConnectionStats stats() const {
    std::lock_guard lock(mutex_);
    ConnectionStats stats = stats_;
    stats.open = static_cast<int64_t>(connections_.size());
    return stats;
  }

 private:
  struct Connection {
    uint64_t id = 0;
    // A duplicate: gRPC owns the connection; this descriptor is used to shut it down and to read
    // its counters.
    int watched_fd = -1;
    std::string peer;
    int gated_fd = -1;               // gRPC's descriptor, as the gate knows it.
    std::shared_ptr<ReadGate> gate;  // Null behind a proxy, and with TLS.
    int64_t calls = 0;
    int64_t expected_bytes = 0;  // Of messages and answered calls since the last check.
    int64_t awaited = 0;         // Calls that wait for their message.
    int64_t gave_up = 0;         // Calls that ended without a message since the last check.
    int looks_over = 0;          // Consecutive checks with too many stray bytes.
    int64_t seen_bytes = 0;
    Bucket abandoned;
    Bucket stray;
    Bucket forgiven;
    bool cut = false;
    // The place in idle_; set if it has no calls.
    std::optional<std::list<uint64_t>::iterator> idle_place;
  };

  void Watch(int fd, uint64_t id, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  void Run() {
    auto next_tick = steady_clock::now() + kTick;
    std::array<epoll_event, 64> events{};
    for (;;) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(next_tick - steady_clock::now());
      const int count = epoll_wait(epoll_, events.data(), events.size(),
                                   static_cast<int>(std::max<int64_t>(0, left.count())));
      for (int i = 0; i < count; ++i) {
        const uint64_t id = events[static_cast<size_t>(i)].data.u64;
        if (id == kWake) return;
        if (id == kListen) {
          Accept();
        } else {
          Forget(id);
        }
      }
      if (steady_clock::now() < next_tick) continue;
      next_tick = steady_clock::now() + kTick;
      SetListening(true);
      LookForStrayBytes();
      if (++ticks_ % kTicksToLookAtMemory == 0) memory_.Look();
      if (tick_) tick_();
    }
  }

  // Off while descriptors are short, so that the thread does not spin.
  void SetListening(bool on) {
    if (listening_ == on) return;
    listening_ = on;
    epoll_event event{};
    event.events = on ? uint32_t{EPOLLIN} : 0;
    event.data.u64 = kListen;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, listener_.fd(), &event);
  }

  void Accept() {
    for (int burst = 0; burst < 64; ++burst) {
      const int fd = accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
      if (fd < 0) {
        MakeRoom();
        return SetListening(false);
      }
      Admit(fd);
    }
  }

  void Admit(int fd) {
    if (IsBarred(fd)) {
      close(fd);
      return;
    }
    if (fd >= fd_max_ || IsFull()) {
      const bool found = MakeRoom();
      if (fd >= fd_max_ || !found) {
        std::lock_guard lock(mutex_);
        ++stats_.refused_total;
        close(fd);
        return;
      }
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Remember(fd);
    if (handover_.Give(fd)) return;
    shutdown(fd, SHUT_RDWR);  // The watched duplicate would keep the connection open.
    close(fd);
    std::lock_guard lock(mutex_);
    ++stats_.refused_total;
  }

  // A client whose connection was cut reconnects at once and sends as many calls again, so its
  // address waits.
  bool IsBarred(int fd) {
    std::lock_guard lock(mutex_);
    if (barred_.empty()) return false;
    const auto it = barred_.find(AddressOf(PeerOf(fd)));
    if (it == barred_.end()) return false;
    if (steady_clock::now() < it->second) {
      ++stats_.refused_total;
      return true;
    }
    barred_.erase(it);
    return false;
  }

  bool IsFull() const {
    std::lock_guard lock(mutex_);
    return connections_.size() >= connections_max_;
  }

  // Closes the connection that has had no calls for the longest time. Returns false if all have
  // calls.
  bool MakeRoom() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return false;
    Connection& oldest = connections_.at(idle_.front());
    ++stats_.evicted_total;
    shutdown(oldest.watched_fd, SHUT_RDWR);
    Erase(&oldest);
    return true;
  }

  void Remember(int fd) {
    Connection connection;
    connection.watched_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    std::lock_guard lock(mutex_);
    ++stats_.accepted_total;
    if (connection.watched_fd < 0) return;  // Not watched: descriptors are short.
    connection.id = next_id_++;
    connection.peer = PeerOf(fd);
    by_peer_[connection.peer] = connection.id;
    if (!limits_.of_a_proxy && !limits_.tls) {
      connection.gated_fd = fd;
      connection.gate = std::make_shared<ReadGate>(
          limits_.gate, [this, id = connection.id](const char* why) { CutFlood(id, why); });
      OpenGate(fd, connection.gate);
    }
    Connection& placed = connections_.emplace(connection.id, std::move(connection)).first->second;
    SetIdle(&placed);
    // EPOLLHUP and EPOLLERR are always reported: gRPC or the peer closed the connection.
    Watch(placed.watched_fd, placed.id, 0);
  }

  void Forget(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto it = connections_.find(id);
    if (it != connections_.end()) Erase(&it->second);
  }

  // A flood often comes over many connections at the same time.
  void CutFlood(uint64_t id, const char* why) {
    std::lock_guard lock(mutex_);
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    Cut(&it->second, why);
    const std::string address = AddressOf(it->second.peer);
    for (auto& [other_id, other] : connections_) {
      if (other.gate == nullptr || other.gate->unreported() <= kUnreportedOfAccomplices) continue;
      if (AddressOf(other.peer) == address) Cut(&other, why);
    }
  }

  // REQUIRES for all below: mutex_ is held.
  Connection* Find(const std::string& peer) {
    const auto it = by_peer_.find(peer);
    return it == by_peer_.end() ? nullptr : &connections_.at(it->second);
  }

  void SetIdle(Connection* connection) {
    connection->idle_place = idle_.insert(idle_.end(), connection->id);
  }

  void Erase(Connection* connection) {
    if (connection->idle_place) idle_.erase(*connection->idle_place);
    const auto named = by_peer_.find(connection->peer);
    if (named != by_peer_.end() && named->second == connection->id) by_peer_.erase(named);
    if (connection->gate != nullptr) CloseGate(connection->gated_fd, connection->gate.get());
    epoll_ctl(epoll_, EPOLL_CTL_DEL, connection->watched_fd, nullptr);
    close(connection->watched_fd);
    connections_.erase(connection->id);
  }

  // gRPC sees the end of the connection and cancels its calls.
  void Cut(Connection* connection, const char* why) {
    if (limits_.of_a_proxy) return;
    if (std::exchange(connection->cut, true)) return;
    ++stats_.cut_total;
    if (barred_.size() >= kBarredMax) barred_.clear();
    barred_[AddressOf(connection->peer)] = steady_clock::now() + limits_.barred_after_cut;
    Disconnect(connection->watched_fd);
    LogWarn("cut the connection of {}: {}", connection->peer, why);
  }

  // Counts the bytes received so far (`bytes`). Returns the level of the stray bytes: those that
  // belong to no call, minus what limits_ forgives over time.
  int64_t StrayLevel(Connection* connection, int64_t bytes) const {
    const int64_t expected = std::exchange(connection->expected_bytes, 0);
    const int64_t stray = bytes - std::exchange(connection->seen_bytes, bytes) - expected;
    return static_cast<int64_t>(connection->stray.Add(
        static_cast<double>(stray), static_cast<double>(limits_.stray_bytes_per_second),
        steady_clock::now()));
  }

  // The bytes that may be parts of messages which are not complete yet.
  int64_t OnTheWay(const Connection& connection) const {
    if (GivesUpMany(connection)) return 0;
    return std::min(connection.awaited, limits_.messages_on_the_way_max) *
           limits_.message_bytes_max;
  }

  // A client that gives up many calls has no messages on the way.
  static bool GivesUpMany(const Connection& connection) { return connection.gave_up > kGaveUpMax; }

  void LookForStrayBytes() {
    std::lock_guard lock(mutex_);
    for (auto& [id, connection] : connections_) {
      const int64_t excess = StrayLevel(&connection, BytesReceived(connection.watched_fd)) -
                             limits_.stray_bytes_burst - OnTheWay(connection);
      const bool resets = GivesUpMany(connection);
      connection.gave_up = 0;
      if (excess <= 0) {
        connection.looks_over = 0;
      } else if (++connection.looks_over >= kLooksOverMax || resets) {
        Cut(&connection, "it sends bytes that belong to no call");
      }
    }
  }

  const ConnectionLimits limits_;
  Listener listener_;
  size_t connections_max_ = 0;
  int fd_max_ = 0;
  int epoll_ = -1;
  int wake_ = -1;
  bool listening_ = true;
  std::function<void()> tick_;
  int64_t ticks_ = 0;
  MemoryReturner memory_;
  Handover handover_;
  std::thread thread_;

  mutable std::mutex mutex_;  // Guards what follows.
  uint64_t next_id_ = kFirstConnection;
  std::unordered_map<uint64_t, Connection> connections_;
  std::unordered_map<std::string, uint64_t> by_peer_;
  // Addresses that get no connection, each with the end of that time.
  std::unordered_map<std::string, steady_clock::time_point> barred_;
  std::list<uint64_t> idle_;  // Ids of connections without calls, the longest idle first.
  ConnectionStats stats_;
};

Connections::Connections(Listener listener, const ConnectionLimits& limits)
    : impl_(std::make_unique<Impl>(std::move(listener), limits)) {}
Connections::~Connections() = default;

int Connections::port() const { return impl_->port(); }
void Connections::AddTo(grpc::ServerBuilder* builder,
                        const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  impl_->AddTo(builder, credentials);
}
void Connections::Start(std::function<void()> tick) { impl_->Start(std::move(tick)); }
void Connections::Stop() { impl_->Stop(); }
int64_t Connections::CallBegan(const std::string& peer) { return impl_->CallBegan(peer); }
void Connections::MessageAwaited(const std::string& peer) { impl_->MessageAwaited(peer); }
void Connections::MessageCame(const std::string& peer, size_t bytes) {
  impl_->MessageCame(peer, bytes);
}
void Connections::NoMessageCame(const std::string& peer) { impl_->NoMessageCame(peer); }
void Connections::CallEnded(const std::string& peer, CallEnd end) { impl_->CallEnded(peer, end); }
ConnectionStats Connections::stats() const { return impl_->stats(); }

}  // namespace fathom::rpc
