#include "router/api/client_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <optional>

namespace fathom::router {
namespace {

std::optional<std::string> NetworkOf(const std::string& host) {
  in6_addr address;
  if (inet_pton(AF_INET6, host.c_str(), &address) != 1) return std::nullopt;
  return "ipv6/64:" + std::string(reinterpret_cast<const char*>(address.s6_addr), 8);
}

}  // namespace

std::string ClientOfPeer(const std::string& peer) {
  if (!peer.starts_with("ipv4:") && !peer.starts_with("ipv6:")) return peer;
  const std::string address = peer.substr(0, peer.rfind(':'));
  const size_t open = address.find("%5B"), bracket = address.find('[');
  const size_t begin = open != address.npos      ? open + 3
                       : bracket != address.npos ? bracket + 1
                                                 : address.npos;
  if (begin == address.npos) return address;
  return NetworkOf(address.substr(begin, address.find_first_of("%]", begin) - begin))
      .value_or(address);
}

std::string ClientBehindProxy(const std::string& peer, std::string_view forwarded_for) {
  const size_t comma = forwarded_for.rfind(',');
  if (comma != forwarded_for.npos) forwarded_for.remove_prefix(comma + 1);
  const size_t begin = forwarded_for.find_first_not_of(" \t");
  if (begin == forwarded_for.npos) return ClientOfPeer(peer);
  const std::string host(
      forwarded_for.substr(begin, forwarded_for.find_last_not_of(" \t") + 1 - begin));
  in_addr address;
  if (inet_pton(AF_INET, host.c_str(), &address) == 1) return "ipv4:" + host;
  return NetworkOf(host).value_or(ClientOfPeer(peer));
}

}  // namespace fathom::router
