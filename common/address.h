// common/address.h: parses and prints all network addresses of the form host:port. An IPv6 host
// needs brackets before a port ([::1]:8001) and may have them without a port. Pure: nothing is
// resolved here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace fathom {

struct HostPort {
  std::string host;  // Without brackets.
  int32_t port = 0;
};

// Removes the brackets: "[::1]" and "::1" give "::1". Any other text is not changed.
std::string BareHost(std::string_view host);

// "127.0.0.1:8001", "[::1]:8001". `host` may already have brackets.
std::string FormatHostPort(std::string_view host, int32_t port);

// INVALID_ARGUMENT says what is missing: the port, the brackets of an IPv6 host, or a number from 1
// to 65535.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

// The addresses in `values`, formatted by FormatHostPort. Each value may have several addresses
// separated by commas. INVALID_ARGUMENT names `flag`, the value and the address; an empty list is
// an error too.
absl::StatusOr<std::vector<std::string>> ParseAddresses(std::string_view flag,
                                                        const std::vector<std::string>& values);

// The host that a client on this machine dials to reach a server that listens on `host`: the
// wildcards 0.0.0.0 and :: become 127.0.0.1 and ::1.
std::string DialHost(std::string_view host);

// Only programs of this machine reach a server that listens on `host`: localhost, 127.x.x.x, ::1.
bool IsLoopback(std::string_view host);

}  // namespace fathom
