#include <utility>

#include "cli/commands.h"
#include "cli/serve/edge.h"
#include "common/address.h"
#include "common/listener.h"
#include "common/process.h"
#include "common/server_process.h"

namespace fathom::client {

int RunEdge(int argc, const char* const* argv) {
  Flags flags("fathom edge",
              "Runs HAProxy in front of a router's gRPC port, for clients that nobody vouches for "
              "(deploy/haproxy.cfg). The router needs --behind-proxy.");
  std::string host = "127.0.0.1", router = "127.0.0.1:8011";
  int32_t port = 8001;
  int32_t parent_pid = 0;
  flags.Group("Network");
  flags.Add("--host", &host, "Address to listen on");
  flags.AddPort("--grpc-port,--port", &port, "gRPC (0: any free one, printed)");
  flags.Add("--router", &router, "HOST:PORT of the router's gRPC port");
  flags.Group("Process");
  AddParentFlag(&parent_pid, &flags);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (parent_pid > 0) DieWithParent(parent_pid);
  RaiseDescriptorLimit();

  const auto address = ParseHostPort(router);
  if (!address.ok()) return Fail("edge", Annotate(address.status(), "--router"));
  const auto haproxy = FindHaproxy();
  if (!haproxy.ok()) return Fail("edge", haproxy.status());
  const auto listener = Listener::Bind(host, port, "--grpc-port");
  if (!listener.ok()) return Fail("edge", listener.status());
  PrintListening("edge", {{"grpc_port", listener->port()}});
  return Fail("edge",
              ExecHaproxy(*haproxy, *listener, FormatHostPort(address->host, address->port)));
}

}  // namespace fathom::client
