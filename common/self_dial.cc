#include "common/self_dial.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "common/address.h"
#include "common/flags.h"
#include "common/log.h"
#include "common/status.h"

namespace fathom {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::string_view kHttp1Greeting = "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
// The preface of an HTTP/2 client and an empty SETTINGS frame.
constexpr std::string_view kHttp2Greeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
                                          24 + 9);

// The first bytes of a client of TLS, to which a server answers whatever certificates it asks for.
std::string TlsGreeting() {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  &SSL_CTX_free);
  const std::unique_ptr<SSL, decltype(&SSL_free)> client(SSL_new(context.get()), &SSL_free);
  BIO* const in = BIO_new(BIO_s_mem());
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(client.get(), in, out);  // Takes both.
  SSL_set_connect_state(client.get());
  SSL_do_handshake(client.get());
  std::string hello(static_cast<size_t>(BIO_pending(out)), '\0');
  BIO_read(out, hello.data(), static_cast<int>(hello.size()));
  return hello;
}

std::string GreetingOf(OwnPort::Speaks speaks) {
  if (speaks == OwnPort::Speaks::kTls) return TlsGreeting();
  return std::string(speaks == OwnPort::Speaks::kHttp1 ? kHttp1Greeting : kHttp2Greeting);
}

bool WaitFor(int fd, short events, steady_clock::time_point deadline) {
  pollfd wait{fd, events, 0};
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
    const int got = poll(&wait, 1, static_cast<int>(std::max<int64_t>(0, left)));
    if (got < 0 && errno == EINTR) continue;
    return got > 0;
  }
}

bool IsWant(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
         error == EADDRNOTAVAIL;
}

// `fd` is a non-blocking socket.
bool Greet(int fd, const addrinfo& address, std::string_view greeting,
           steady_clock::time_point deadline) {
  if (connect(fd, address.ai_addr, address.ai_addrlen) != 0 && errno != EINPROGRESS) {
    return IsWant(errno);
  }
  if (!WaitFor(fd, POLLOUT, deadline)) return false;
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return IsWant(error);
  // If the connection is closed already, the send fails; that is an answer too.
  static_cast<void>(send(fd, greeting.data(), greeting.size(), MSG_NOSIGNAL));
  return WaitFor(fd, POLLIN, deadline);
}

}  // namespace

bool Answers(const OwnPort& port, int timeout_ms) {
  const auto deadline = steady_clock::now() + milliseconds(timeout_ms);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(DialHost(port.host).c_str(), std::to_string(port.port).c_str(), &hints, &found) !=
      0) {
    return true;
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  const bool answers = Greet(fd, *found, GreetingOf(port.speaks), deadline);
  close(fd);
  return answers;
}

class SelfDial::Impl {
 public:
  Impl(std::vector<OwnPort> ports, const SelfDialOptions& options,
       std::function<void(const std::string&)> deaf)
      : ports_(std::move(ports)),
        options_(options),
        deaf_(std::move(deaf)),
        failures_(ports_.size(), 0),
        thread_([this] { Run(); }) {}

  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  bool hears() const { return hears_; }

 private:
  // Returns false if the object is being destroyed.
  bool Pause() {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, milliseconds(options_.interval_ms), [this] { return over_; });
  }

  void Run() {
    while (Pause()) {
      bool all = true;
      for (size_t i = 0; i < ports_.size(); ++i) {
        const bool answers = Answers(ports_[i], options_.timeout_ms);
        failures_[i] = answers ? 0 : failures_[i] + 1;
        all = all && answers;
        if (failures_[i] < options_.failures_max) continue;
        hears_ = false;
        return End(fmt::format("{} {}: {} new connections in a row got no answer within {} ms each",
                               ports_[i].flag, FormatHostPort(ports_[i].host, ports_[i].port),
                               failures_[i], options_.timeout_ms));
      }
      hears_ = all;
    }
  }

  void End(const std::string& why) {
    if (deaf_) return deaf_(why);
    LogError("{}; this process is deaf and ends", why);
    LogFlush();
    _exit(kExitInternal);
  }

  const std::vector<OwnPort> ports_;
  const SelfDialOptions options_;
  const std::function<void(const std::string&)> deaf_;
  std::vector<int> failures_;
  std::atomic<bool> hears_{true};
  std::mutex mutex_;  // Guards over_.
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

SelfDial::SelfDial(std::vector<OwnPort> ports, const SelfDialOptions& options,
                   std::function<void(const std::string&)> deaf)
    : impl_(std::make_unique<Impl>(std::move(ports), options, std::move(deaf))) {}
SelfDial::~SelfDial() = default;

bool SelfDial::hears() const { return impl_->hears(); }

}  // namespace fathom
