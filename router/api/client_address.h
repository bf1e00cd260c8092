// router/api/client_address.h: the client that a call counts for where clients share a resource
// (the time of the tokenizer threads). A client is an address without its port; for IPv6 it is the
// /64 network, because one host usually has a whole /64. Pure.
#pragma once

#include <string>
#include <string_view>

namespace fathom::router {

// The client of a connection. Every front end spells `peer` as gRPC does: "ipv4:1.2.3.4:5678",
// "ipv6:%5B::1%5D:5678", "unix:...". A peer in any other form is returned unchanged.
std::string ClientOfPeer(const std::string& peer);

// The client of a call that came through a proxy: the last address in the "x-forwarded-for" header.
// The proxy itself has added that one; a client can invent the addresses before it. Without a
// readable address: ClientOfPeer(peer), which is the proxy.
std::string ClientBehindProxy(const std::string& peer, std::string_view forwarded_for);

}  // namespace fathom::router
