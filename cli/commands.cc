#include "cli/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <fstream>
#include <string_view>

#include "common/address.h"
#include "common/output.h"

namespace fathom::client {

void ServerFlag::Add(Flags& flags) {
  flags.Group("Cluster");
  flags.Add("--server", &servers, "HOST:PORT of a router's gRPC port; several with commas");
  flags.Add("--use-proxy", &use_proxy,
            "Reach it through the proxy that http_proxy names (else proxies are ignored)");
  flags.Add(
      "--api-key", &api_key,
      "Key of a router that asks for one; better in the variable FATHOM_API_KEY, because other "
      "users see arguments");
  flags.Add("--tls", &tls, "TLS, with the system's roots; the flags below imply it");
  flags.Add("--tls-ca", &tls_files.ca, "Roots (PEM) of the router's certificate");
  flags.Add("--tls-cert", &tls_files.cert, "Own certificate (PEM), if the router asks for one");
  flags.Add("--tls-key", &tls_files.key, "Its private key (PEM)");
}

absl::StatusOr<std::unique_ptr<Client>> ServerFlag::Dial() const {
  ClientOptions options;
  FATHOM_ASSIGN_OR_RETURN(options.servers, ParseAddresses("--server", {servers}));
  options.use_proxy = use_proxy;
  options.api_key = api_key;
  options.tls = has_tls();
  options.tls_files = tls_files;
  const bool pair = !tls_files.cert.empty() || !tls_files.key.empty();
  if (pair) {
    FATHOM_RETURN_IF_ERROR(
        CheckTlsFiles(tls_files, {"--tls-cert", "--tls-key", "--tls-ca"}, /*ca_required=*/false));
  } else if (!tls_files.ca.empty()) {
    FATHOM_ASSIGN_OR_RETURN(const std::string roots, ReadWholeFile(tls_files.ca, 16 << 20));
    if (!NamesOfCertificate(roots).ok()) {
      return Invalid("--tls-ca {}: is no certificate in PEM (-----BEGIN CERTIFICATE-----)",
                     tls_files.ca);
    }
  }
  options.first_budget_ms = 3000;  // Long enough for a router to restart.
  return std::make_unique<Client>(std::move(options));
}

std::vector<std::string> SplitCommas(const std::string& text) {
  std::vector<std::string> words;
  for (size_t start = 0; start < text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    if (comma > start) words.push_back(text.substr(start, comma - start));
    start = comma + 1;
  }
  return words;
}

absl::StatusOr<std::vector<TokenId>> ParseIds(const std::string& text) {
  std::vector<TokenId> ids;
  for (std::string word : SplitCommas(text)) {
    const size_t first = word.find_first_not_of(' ');
    word.erase(0, std::min(first, word.size()));
    TokenId id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0) {
      return Invalid("'{}' is not a token id; give numbers with commas between them", word);
    }
    ids.push_back(id);
  }
  return ids;
}

std::string NowUtc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

int Fail(const std::string& command, const absl::Status& status) {
  Diagnose("fathom {}: {}", command, Message(status));
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return kExitUsage;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kCancelled:
      return kExitUnavailable;
    default:
      return kExitInternal;
  }
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return NotFound("{} cannot be read; is the name right?", path);
  const int64_t bytes = file.tellg();
  if (bytes > max_bytes) return Invalid("{} has {} bytes, the limit is {}", path, bytes, max_bytes);
  std::string text(static_cast<size_t>(bytes), '\0');
  file.seekg(0);
  file.read(text.data(), bytes);
  if (!file) return NotFound("{} cannot be read", path);
  return text;
}

}  // namespace fathom::client
