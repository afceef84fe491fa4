//! The S3 operations, on a [`Store`](crate::Store).

mod list;
mod objects;
mod service;

pub(crate) use service::Api;

use crate::body::s3_error as answer;
use crate::record::{Attributes, Checksums};
use crate::upload::{self, NamedPart, PartOf};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use service::{check_key, none_match};

#[async_trait::async_trait]
impl S3 for Api {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        let location = Some(format!("/{bucket}"));
        let made = self
            .on_disk(move |s| s.create_bucket(&bucket).map_err(answer))
            .await?;
        if !made {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let bucket = req.input.bucket;
        if !self
            .on_disk(move |s| s.delete_bucket(&bucket).map_err(answer))
            .await?
        {
            return Err(s3_error!(BucketNotEmpty));
        }
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.check_bucket(&req.input.bucket).map_err(answer)?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region,
            ..Default::default()
        }))
    }

    async fn list_buckets(
        &self,
        _req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.store.buckets().into_iter();
        let buckets = names.map(|name| Bucket {
            name: Some(name),
            ..Default::default()
        });
        let buckets = Some(buckets.collect());
        Ok(S3Response::new(ListBucketsOutput {
            buckets,
            ..Default::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.check_bucket(&req.input.bucket).map_err(answer)?;
        // the oldest region's name is the empty one
        let other = (self.region != "us-east-1").then(|| self.region.clone());
        let location_constraint = other.map(BucketLocationConstraint::from);
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint,
        }))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.put(req).await
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.get(req).await
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.head(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, .. } = req.input;
        self.on_disk(move |s| s.delete(&bucket, &key).map_err(answer))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        let quiet = delete.quiet == Some(true);
        let deleted = self.on_disk(move |store| {
            let mut deleted = Vec::new();
            for object in delete.objects {
                store.delete(&bucket, &object.key).map_err(answer)?;
                deleted.push(DeletedObject {
                    key: Some(object.key),
                    ..Default::default()
                });
            }
            Ok(deleted)
        });
        let deleted = Some(deleted.await?).filter(|_| !quiet);
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted,
            ..Default::default()
        }))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.list_v1(req.input)
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list_v2(req.input)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        check_key(&input.key)?;
        let attributes = Attributes {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            user: input.metadata.unwrap_or_default(),
        };
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let begun = self.on_disk(|s| upload::begin(s, bucket, key, attributes).map_err(answer));
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(begun.await?),
            bucket: Some(input.bucket),
            key: Some(input.key),
            checksum_algorithm: input.checksum_algorithm,
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let expected = crate::body::Expected {
            md5: input.content_md5,
            checksums: Checksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
            },
            algorithm: input.checksum_algorithm.map(|a| a.as_str().to_string()),
            trailers: req.trailing_headers,
        };
        let part = PartOf {
            bucket: input.bucket,
            key: input.key,
            upload_id: input.upload_id,
            number: input.part_number,
        };
        let (e_tag, checksum_crc32) =
            upload::put_part(&self.store, part, input.body, expected).await?;
        let e_tag = Some(ETag::Strong(e_tag));
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            checksum_crc32,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let named = input
            .multipart_upload
            .and_then(|m| m.parts)
            .unwrap_or_default();
        let parts: Vec<NamedPart> = named
            .into_iter()
            .map(|p| NamedPart {
                number: p.part_number.unwrap_or_default(),
                e_tag: p.e_tag.map(ETag::into_value),
                crc32: p.checksum_crc32,
            })
            .collect();
        let only_new = none_match(input.if_none_match.as_ref());
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
        let done = self.on_disk(move |s| upload::complete(s, &bucket, &key, &id, &parts, only_new));
        let e_tag = Some(ETag::Strong(done.await?));
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag,
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput {
            bucket,
            key,
            upload_id,
            ..
        } = req.input;
        self.on_disk(move |s| upload::abort(s, &bucket, &key, &upload_id))
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let bucket = req.input.bucket.clone();
        let all = self
            .on_disk(move |s| upload::all(s, &bucket).map_err(answer))
            .await?;
        Ok(S3Response::new(list::uploads(all, req.input)))
    }
}
