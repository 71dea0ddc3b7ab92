/* From the reset vector to C; interrupts and exceptions; sleeping (S3) and waking. */

#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10
#define CMOS_SHUTDOWN_STATUS 0x0F
#define CMOS_WOKEN_FROM_S3 0xFE /* QEMU writes it when the machine goes to sleep */
#define RESUME_MAGIC 0x57414B45

	.section .text.boot, "ax"
	.code16
	.globl rom_start
rom_start:
	cli
	cld
	lgdtl	%cs:(descriptor_table_register - rom_start)
	mov	%cr0, %eax
	and	$0x9FFFFFFF, %eax /* caches on */
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$CODE_SELECTOR, $protected_mode

	.code32
protected_mode:
	mov	$DATA_SELECTOR, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %fs
	mov	%ax, %gs
	mov	%ax, %ss

	mov	$CMOS_SHUTDOWN_STATUS, %al
	out	%al, $0x70
	in	$0x71, %al
	cmp	$CMOS_WOKEN_FROM_S3, %al
	jne	cold_start
	cmpl	$RESUME_MAGIC, resume_magic
	je	wake
cold_start:
	mov	$bss_start, %edi
	mov	$bss_end, %ecx
	sub	%edi, %ecx
	shr	$2, %ecx
	xor	%eax, %eax
	rep stosl
	mov	$stack_top, %esp
	call	make_interrupt_table
	call	guest_main
	jmp	stop_for_ever

wake:
	mov	$CMOS_SHUTDOWN_STATUS, %al
	out	%al, $0x70
	xor	%eax, %eax
	out	%al, $0x71
	movl	$0, resume_magic
	mov	resume_stack, %esp
	lidtl	interrupt_table_register
	popa
	ret

/* void sleep_until_woken(u16 port, u16 value): writes value, which ends the machine's power;
 * returns after it woke at the reset vector. */
	.globl sleep_until_woken
sleep_until_woken:
	mov	4(%esp), %edx
	mov	8(%esp), %eax
	pusha
	mov	%esp, resume_stack
	movl	$RESUME_MAGIC, resume_magic
	outw	%ax, %dx
1:	hlt /* interrupts are off */
	jmp	1b

/* void halt_until_tick(void) */
	.globl halt_until_tick
halt_until_tick:
	sti
	hlt
	ret

/* Interrupts are only ever on in halt_until_tick, and off again behind it: so the handler returns like a
 * function and drops CS and EFLAGS. KVM without hardware virtualisation can't emulate a protected-mode iret. */
	.globl tick_interrupt
tick_interrupt:
	push	%eax
	mov	$0x20, %al
	out	%al, $0x20
	pop	%eax
	ret	$8

/* void load_interrupt_table(void *base, u32 limit) */
	.globl load_interrupt_table
load_interrupt_table:
	mov	8(%esp), %eax
	mov	%ax, interrupt_table_register
	mov	4(%esp), %eax
	mov	%eax, interrupt_table_register + 2
	lidtl	interrupt_table_register
	ret

/* One entry for each exception: pushes its number; the common part shows the stack to C. */
	.macro exception number, has_error_code=0
	.if \has_error_code == 0
	pushl	$0
	.endif
	pushl	$\number
	jmp	exception_common
	.balign 16
	.endm
	.balign 16
	.globl exception_entries
exception_entries:
	.set i, 0
	.rept 32
	.if i == 8 || (i >= 10 && i <= 14) || i == 17 || i == 21
	exception i, 1
	.else
	exception i, 0
	.endif
	.set i, i + 1
	.endr
exception_common:
	cld
	call	say_exception /* (number, error code, address) and never returns */

	.balign 8
descriptor_table: /* the accessed bits are set: KVM would loop on writing them into ROM */
	.quad	0
	.quad	0x00CF9B000000FFFF
	.quad	0x00CF93000000FFFF
descriptor_table_register:
	.word	23
	.long	descriptor_table

	.section .reset, "ax"
	.code16
	jmp	rom_start
	.balign 16

	.section .bss
	.balign 4096
	.skip	16384
stack_top:
resume_stack:
	.skip	4
resume_magic:
	.skip	4
interrupt_table_register:
	.skip	8
	.section .note.GNU-stack, "", @progbits
