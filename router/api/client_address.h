// router/api/client_address.h: whom a call is counted for where clients share something
// (tokenizer time): the client's address without its port, of IPv6 the /64 network (one host has a
// whole one). Pure.
#pragma once

#include <string>
#include <string_view>

namespace fathom::router {

// `peer`: as gRPC spells it, and so every front end: "ipv4:1.2.3.4:5678", "ipv6:%5B::1%5D:5678",
// "unix:...". What has another form stands for itself.
std::string ClientOfPeer(const std::string& peer);

// Of a call that a proxy brings: the last address in its "x-forwarded-for" headers, which is the
// one that the proxy itself saw; the client may have made up those before it. Without a readable
// one: the proxy, by `peer`.
std::string ClientBehindProxy(const std::string& peer, std::string_view forwarded_for);

}  // namespace fathom::router
