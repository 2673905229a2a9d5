; The loop of pick.py. Little endian, as every processor that libsodium has AES-256-GCM for.

declare i64 @llvm.bswap.i64(i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; For each of `pages` bodies: copy it, open the copy, look for the names that are asked of it, hand out their keys.
;   open          libsodium's crypto_aead_aes256gcm_decrypt
;   file          where bodies lie: body i has size[i] <= 4096 bytes (0: none is seen) and begins at file + at[i]
;   keys, nodes   its key of 32 bytes, its row: 2 * page + half
;   aad, head     what it is bound to, but for page and half; how its plaintext begins, as a number with a count of 0
;   first, by     the names first[i] to first[i + 1] - 1 are asked of it, in the order of entries; each is names[by[.]]
;   body, plain   scratch, 4096 bytes each
;   opened        told for each page: 1 where it is a bucket that opens
;   raw, found    told for each name, where it is found: its key, and 1
define void @pick(ptr %open, i64 %pages, ptr %file, ptr %at, ptr %size, ptr %keys, ptr %nodes, ptr %aad, i64 %head,
                  ptr %first, ptr %by, ptr %names, ptr %body, ptr %plain, ptr %opened, ptr %raw, ptr %found) {
begin:
  %nonce = getelementptr i8, ptr %body, i64 2
  %sealed = getelementptr i8, ptr %body, i64 14
  %rows = getelementptr i8, ptr %plain, i64 8
  %aad.half = getelementptr i8, ptr %aad, i64 6
  %aad.page = getelementptr i8, ptr %aad, i64 24
  br label %next

next:
  %i = phi i64 [ 0, %begin ], [ %i.next, %next.page ]
  %i.next = add i64 %i, 1
  %left = icmp ult i64 %i, %pages
  br i1 %left, label %look, label %end
look:
  %size.i = getelementptr i64, ptr %size, i64 %i
  %bytes = load i64, ptr %size.i
  %whole = icmp uge i64 %bytes, 38                                ; version, suite, nonce, head of a bucket, tag
  br i1 %whole, label %copy, label %next.page

  ; (1) a copy: others write to the file, and what was checked must be what is used
copy:
  %at.i = getelementptr i64, ptr %at, i64 %i
  %offset = load i64, ptr %at.i
  %source = getelementptr i8, ptr %file, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %body, ptr %source, i64 %bytes, i1 true)
  %said = load i16, ptr %body, align 1
  %ours = icmp eq i16 %said, 257                                  ; version 1, suite 1
  br i1 %ours, label %unlock, label %next.page

  ; (2) opened in its place, which the associated data name
unlock:
  %node.i = getelementptr i64, ptr %nodes, i64 %i
  %node = load i64, ptr %node.i
  %page = lshr i64 %node, 1
  store i64 %page, ptr %aad.page, align 1
  %node.low = trunc i64 %node to i8
  %half = and i8 %node.low, 1
  store i8 %half, ptr %aad.half
  %key = getelementptr [32 x i8], ptr %keys, i64 %i
  %text = sub i64 %bytes, 14
  %code = call i32 %open(ptr %plain, ptr null, ptr null, ptr %sealed, i64 %text, ptr %aad, i64 32, ptr %nonce, ptr %key)
  %good = icmp eq i32 %code, 0
  br i1 %good, label %check, label %next.page

  ; (3) a bucket: `4C, level, count u16, 0 u32`, and no more entries than there are bytes
check:
  %begins = load i64, ptr %plain, align 1
  %but.count = and i64 %begins, u0xFFFFFFFF0000FFFF
  %bucket = icmp eq i64 %but.count, %head
  %count.0 = lshr i64 %begins, 16
  %count = and i64 %count.0, 65535
  %taken = mul i64 %count, 45
  %room = sub i64 %bytes, 38
  %fits = icmp ule i64 %taken, %room
  %fine = and i1 %bucket, %fits
  br i1 %fine, label %ask, label %next.page
ask:
  %opened.i = getelementptr i8, ptr %opened, i64 %i
  store i8 1, ptr %opened.i
  %first.i = getelementptr i64, ptr %first, i64 %i
  %first.next = getelementptr i64, ptr %first, i64 %i.next
  %from = load i64, ptr %first.i
  %to = load i64, ptr %first.next
  br label %next.name

next.page:
  br label %next

  ; (4) each name that is asked of it
next.name:
  %j = phi i64 [ %from, %ask ], [ %j.next, %missed ], [ %j.next, %hit ]
  %j.next = add i64 %j, 1
  %asked = icmp ult i64 %j, %to
  br i1 %asked, label %seek, label %next.page
seek:
  %by.j = getelementptr i64, ptr %by, i64 %j
  %n = load i64, ptr %by.j
  %name.n = getelementptr [13 x i8], ptr %names, i64 %n
  %name = call i128 @name(ptr %name.n)
  %nth = call i64 @below(ptr %rows, i64 %count, i128 %name)
  %inside = icmp ult i64 %nth, %count
  %row = getelementptr [45 x i8], ptr %rows, i64 %nth
  br i1 %inside, label %compare, label %missed
compare:
  %here = call i128 @name(ptr %row)
  %same = icmp eq i128 %here, %name
  br i1 %same, label %hit, label %missed
hit:
  %its.key = getelementptr i8, ptr %row, i64 13
  %raw.n = getelementptr [32 x i8], ptr %raw, i64 %n
  call void @llvm.memcpy.p0.p0.i64(ptr %raw.n, ptr %its.key, i64 32, i1 false)
  %found.n = getelementptr i8, ptr %found, i64 %n
  store i8 1, ptr %found.n
  br label %next.name
missed:
  br label %next.name
end:
  ret void
}

; How many of a bucket's rows are below a name: halves them until none is left.
define private i64 @below(ptr %rows, i64 %count, i128 %name) {
begin:
  br label %next
next:
  %from = phi i64 [ 0, %begin ], [ %from.next, %halve ]
  %many = phi i64 [ %count, %begin ], [ %many.next, %halve ]
  %none = icmp eq i64 %many, 0
  br i1 %none, label %end, label %halve
halve:
  %half = lshr i64 %many, 1
  %middle = add i64 %from, %half
  %row = getelementptr [45 x i8], ptr %rows, i64 %middle
  %here = call i128 @name(ptr %row)
  %lower = icmp ult i128 %here, %name
  %behind = add i64 %middle, 1
  %half.less = xor i64 %half, -1
  %rest = add i64 %many, %half.less
  %from.next = select i1 %lower, i64 %behind, i64 %from
  %many.next = select i1 %lower, i64 %rest, i64 %half
  br label %next
end:
  ret i64 %from
}

; The 13 bytes of a name as a number that sorts as they do: the first eight above the last eight.
define private i128 @name(ptr %bytes) alwaysinline {
  %first = load i64, ptr %bytes, align 1
  %behind = getelementptr i8, ptr %bytes, i64 5
  %last = load i64, ptr %behind, align 1
  %first.big = call i64 @llvm.bswap.i64(i64 %first)
  %last.big = call i64 @llvm.bswap.i64(i64 %last)
  %high.0 = zext i64 %first.big to i128
  %high = shl i128 %high.0, 64
  %low = zext i64 %last.big to i128
  %both = or i128 %high, %low
  ret i128 %both
}
