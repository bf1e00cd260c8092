#include "cluster/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "cluster/protocol.h"

namespace fathom {
namespace {

constexpr unsigned kRefreshSeconds = 1;

}  // namespace

std::shared_ptr<grpc::ChannelCredentials> TlsCredentials(const TlsFiles& files) {
  using grpc::experimental::FileWatcherCertificateProvider;
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (files.on() || !files.ca.empty()) {
    options.set_certificate_provider(std::make_shared<FileWatcherCertificateProvider>(
        files.key, files.cert, files.ca, kRefreshSeconds));
  }
  if (files.on()) options.watch_identity_key_cert_pairs();
  if (!files.ca.empty()) options.watch_root_certs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> UnverifiedTls() {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  return grpc::experimental::TlsCredentials(options);
}

ChannelOptions ToScheduler(const TlsFiles& files) {
  if (!files.on()) return {};
  return {.credentials = TlsCredentials(files), .peer_name = kSchedulerName};
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ChannelOptions& options) {
  grpc::ChannelArguments args;
  // gRPC's own first back-off is one second; a peer that starts at the same time as this process
  // would become reachable that much later (docs/DECISIONS.md).
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // Also the connect time-out.
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, options.reconnect_ms_max);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, options.use_proxy ? 1 : 0);
  args.SetMaxReceiveMessageSize(kClusterMessageBytesMax);
  args.SetMaxSendMessageSize(kClusterMessageBytesMax);
  if (!options.peer_name.empty()) args.SetSslTargetNameOverride(options.peer_name);
  return grpc::CreateCustomChannel(
      address,
      options.credentials == nullptr ? grpc::InsecureChannelCredentials() : options.credentials,
      args);
}

}  // namespace fathom
