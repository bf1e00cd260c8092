#include "http/tls_context.h"

#include <openssl/ssl.h>

#include <boost/asio/buffer.hpp>
#include <string_view>

namespace fathom::http {
namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

constexpr int64_t kPemBytesMax = 1 << 20;
constexpr std::string_view kProtocol("\x08http/1.1", 9);

// A client that offers protocols, but not this one, gets none, and may go on.
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* offered, unsigned offered_size, void*) {
  unsigned char* chosen = nullptr;
  const auto* const own = reinterpret_cast<const unsigned char*>(kProtocol.data());
  if (SSL_select_next_proto(&chosen, out_size, own, static_cast<unsigned>(kProtocol.size()),
                            offered, offered_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

TlsContext::TlsContext(const TlsFiles& files, const TlsFlags& flags)
    : files_(files),
      flags_(flags),
      cert_(flags.cert, files.cert, kPemBytesMax),
      key_(flags.key, files.key, kPemBytesMax) {}

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Load(const TlsFiles& files,
                                                             const TlsFlags& flags) {
  std::unique_ptr<TlsContext> made(new TlsContext(files, flags));
  FATHOM_RETURN_IF_ERROR(made->Read());
  return made;
}

absl::Status TlsContext::Read() {
  FATHOM_RETURN_IF_ERROR(CheckTlsFiles(files_, flags_, /*ca_required=*/false));
  FATHOM_ASSIGN_OR_RETURN(const std::string cert, cert_.Read());
  FATHOM_ASSIGN_OR_RETURN(const std::string key, key_.Read());
  const auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* const native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Buffers of a connection that waits are given back: 34 KiB for each of thousands of streams.
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(native, &ChooseProtocol, nullptr);
  error_code error;
  context->use_certificate_chain(boost::asio::buffer(cert), error);
  if (!error) context->use_private_key(boost::asio::buffer(key), ssl::context::pem, error);
  if (!error && !files_.ca.empty()) {
    // OpenSSL refuses to resume a session with a client's certificate that belongs to no context.
    constexpr unsigned char kSessions[] = {'f', 'a', 't', 'h', 'o', 'm'};
    SSL_CTX_set_session_id_context(native, kSessions, sizeof kSessions);
    context->load_verify_file(files_.ca, error);
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  }
  if (error) {
    return Invalid("{} {}, {} {}: OpenSSL cannot use them: {}", flags_.cert, files_.cert,
                   flags_.key, files_.key, error.message());
  }
  const std::lock_guard lock(mutex_);
  context_ = context;
  return absl::OkStatus();
}

absl::StatusOr<bool> TlsContext::Reload() {
  if (!cert_.Changed() && !key_.Changed()) return false;
  FATHOM_RETURN_IF_ERROR(Read());
  return true;
}

std::shared_ptr<ssl::context> TlsContext::current() const {
  const std::lock_guard lock(mutex_);
  return context_;
}

}  // namespace fathom::http
