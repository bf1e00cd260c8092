#include "common/address.h"

#include <algorithm>
#include <charconv>

namespace fathom {
namespace {

constexpr int32_t kPortMax = 65535;

bool IsBracketed(std::string_view host) {
  return host.size() >= 2 && host.front() == '[' && host.back() == ']';
}

// The port after the last colon, or -1.
int32_t PortOf(std::string_view text) {
  int32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && port >= 1 && port <= kPortMax ? port : -1;
}

}  // namespace

std::string BareHost(std::string_view host) {
  return std::string(IsBracketed(host) ? host.substr(1, host.size() - 2) : host);
}

std::string FormatHostPort(std::string_view host, int32_t port) {
  const std::string bare = BareHost(host);
  return bare.find(':') == std::string::npos ? fmt::format("{}:{}", bare, port)
                                             : fmt::format("[{}]:{}", bare, port);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const size_t colon = text.rfind(':');
  const std::string_view host = text.substr(0, std::min(colon, text.size()));
  if (IsBracketed(text) || colon == std::string_view::npos) {
    return Invalid("'{}' has no port; give host:port, e.g. 127.0.0.1:8001 or [::1]:8001", text);
  }
  if (host.empty()) {
    return Invalid("'{}' has no host before its port; give host:port, e.g. 127.0.0.1:8001", text);
  }
  if (!IsBracketed(host) && host.find(':') != std::string_view::npos) {
    return Invalid("'{}': an IPv6 host stands in brackets before its port, e.g. [::1]:8001", text);
  }
  const std::string bare = BareHost(host);
  if (bare.empty() || bare.find_first_of("[] \t/") != std::string::npos) {
    return Invalid("'{}': '{}' is not a host; give host:port, e.g. 127.0.0.1:8001 or [::1]:8001",
                   text, host);
  }
  const int32_t port = PortOf(text.substr(colon + 1));
  if (port < 0) {
    return Invalid("'{}': the port '{}' is not a number from 1 to {}", text, text.substr(colon + 1),
                   kPortMax);
  }
  return HostPort{bare, port};
}

absl::StatusOr<std::vector<std::string>> ParseAddresses(std::string_view flag,
                                                        const std::vector<std::string>& values) {
  std::vector<std::string> all;
  for (const std::string& value : values) {
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find(',', begin), value.size());
      const auto address = ParseHostPort(std::string_view(value).substr(begin, end - begin));
      if (!address.ok()) {
        return Annotate(address.status(), fmt::format("{} {}", flag, value));
      }
      all.push_back(FormatHostPort(address->host, address->port));
      begin = end + 1;
    }
  }
  if (all.empty()) return Invalid("{} is empty; give at least one host:port", flag);
  return all;
}

std::string DialHost(std::string_view host) {
  const std::string bare = BareHost(host);
  if (bare == "0.0.0.0") return "127.0.0.1";
  if (bare == "::") return "::1";
  return bare;
}

bool IsLoopback(std::string_view host) {
  const std::string bare = BareHost(host);
  return bare == "localhost" || bare == "::1" || bare.starts_with("127.");
}

}  // namespace fathom
