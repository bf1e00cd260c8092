#include "rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/status.h>

#include <set>

#include "grpc/reflection/v1/reflection.pb.h"

namespace fathom::rpc {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

void SetError(grpc::StatusCode code, const std::string& message,
              ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(code);
  response->mutable_error_response()->set_error_message(message);
}

void AddFile(const FileDescriptor& file, std::set<const FileDescriptor*>* seen,
             ServerReflectionResponse* response) {
  if (!seen->insert(&file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  proto.SerializeToString(
      response->mutable_file_descriptor_response()->add_file_descriptor_proto());
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), seen, response);
}

void SetFile(const FileDescriptor* file, const std::string& asked,
             ServerReflectionResponse* response) {
  if (file == nullptr) {
    return SetError(grpc::StatusCode::NOT_FOUND, "not found: " + asked, response);
  }
  std::set<const FileDescriptor*> seen;
  AddFile(*file, &seen, response);
}

void SetExtensionNumbers(const DescriptorPool& pool, const std::string& type,
                         ServerReflectionResponse* response) {
  const auto* message = pool.FindMessageTypeByName(type);
  if (message == nullptr) {
    return SetError(grpc::StatusCode::NOT_FOUND, "not found: " + type, response);
  }
  auto* answer = response->mutable_all_extension_numbers_response();
  answer->set_base_type_name(type);
  std::vector<const google::protobuf::FieldDescriptor*> extensions;
  pool.FindAllExtensions(message, &extensions);
  for (const auto* extension : extensions) answer->add_extension_number(extension->number());
}

void Answer(const ServerReflectionRequest& request, const std::vector<std::string>& services,
            ServerReflectionResponse* response) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      return SetFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(),
                     response);
    case ServerReflectionRequest::kFileContainingSymbol:
      return SetFile(pool.FindFileContainingSymbol(request.file_containing_symbol()),
                     request.file_containing_symbol(), response);
    case ServerReflectionRequest::kFileContainingExtension: {
      const auto& asked = request.file_containing_extension();
      const auto* message = pool.FindMessageTypeByName(asked.containing_type());
      const auto* extension = message == nullptr
                                  ? nullptr
                                  : pool.FindExtensionByNumber(message, asked.extension_number());
      return SetFile(extension == nullptr ? nullptr : extension->file(), asked.containing_type(),
                     response);
    }
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      return SetExtensionNumbers(pool, request.all_extension_numbers_of_type(), response);
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : services) {
        response->mutable_list_services_response()->add_service()->set_name(name);
      }
      return;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      return SetError(grpc::StatusCode::INVALID_ARGUMENT, "the request asks for nothing", response);
  }
}

}  // namespace

std::string AnswerReflection(const std::string& bytes, const std::vector<std::string>& services) {
  ServerReflectionRequest request;
  ServerReflectionResponse response;
  if (request.ParseFromString(bytes)) {
    response.set_valid_host(request.host());
    Answer(request, services, &response);
    *response.mutable_original_request() = std::move(request);
  } else {
    SetError(grpc::StatusCode::INVALID_ARGUMENT, "not a ServerReflectionRequest", &response);
  }
  return response.SerializeAsString();
}

}  // namespace fathom::rpc
