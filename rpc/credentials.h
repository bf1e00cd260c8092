// rpc/credentials.h: TLS of a gRPC port. The files are read again when they change, so certificates
// are replaced without a restart: new connections use the new ones. Thread: any.
#pragma once

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>
#include <vector>

#include "common/tls_files.h"

namespace fathom::rpc {

// Without files: no TLS. With files.ca a client must have a certificate of it. REQUIRES: the files
// were checked (CheckTlsFiles), since gRPC only drops the connections if it cannot use them.
std::shared_ptr<grpc::ServerCredentials> ServerCredentialsOf(const TlsFiles& files);

// The names in the certificate of a peer, which TLS has checked; empty: it has none.
std::vector<std::string> PeerNames(const grpc::AuthContext& context);

}  // namespace fathom::rpc
